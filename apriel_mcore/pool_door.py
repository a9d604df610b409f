"""What `apriel pool` does: orders to a running run, and a table of its servers."""

from pathlib import Path

from rich.table import Table

from apriel_mcore.errors import AprielError
from apriel_mcore.rollout import orders
from apriel_mcore.rundir import existing
from apriel_mcore.views.terminal import add_columns, show

_COLUMNS = ("server", "state", "version", "running", "answered", "tokens", "failed", "restarts", "mean s")


def show_servers(root: Path) -> None:
    """A table of the servers."""
    table = Table(title=f"servers of {root}")
    add_columns(table, *_COLUMNS, words=2)
    for server in orders.listing(existing(root).pool):
        numbers = (server.version, server.running, server.requests, server.tokens, server.failures)
        table.add_row(
            server.name,
            server.state,
            *map(str, numbers),
            str(server.restarts),
            f"{server.seconds_mean:.2f}",
        )
    show(table)


def grow(root: Path, url: str | None, *, timeout_s: float) -> None:
    """One more server: a local one, or the one at `url`."""
    order = orders.AddUrl(orders.checked_url(url)) if url else orders.AddLocal()
    goes_on = "asked the run for one more server; it serves when it has loaded and has the current weights"
    _give(root, order, timeout_s, goes_on=goes_on)


def shrink(root: Path, name: str, *, timeout_s: float) -> None:
    """A server goes."""
    goes_on = f"asked the run to let {name} go; it goes when it has answered what it was asked"
    _give(root, orders.Drain(name), timeout_s, goes_on=goes_on)


def _give(root: Path, order: orders.Order, timeout_s: float, *, goes_on: str) -> None:
    """Leave an order, say what happens next and where to see it, and wait for the end of it."""
    run_dir = existing(root)
    orders.listing(run_dir.pool)
    print(f"{goes_on} (`apriel pool list {root}` shows it; Ctrl-C ends this wait alone)", flush=True)
    reply = orders.give(run_dir.pool, order, timeout_s=timeout_s)
    if reply.exit_code:
        error = AprielError(reply.message)
        error.exit_code = reply.exit_code
        raise error
    print(reply.message)
