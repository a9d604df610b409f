"""What `apriel pool` does: orders to a running run, and a table of its servers."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from apriel_mcore.errors import AprielError
from apriel_mcore.rollout import orders
from apriel_mcore.rundir import RunDir


def show(root: Path) -> None:
    """A table of the servers."""
    table = Table(title=f"servers of {root}")
    for name in (
        "server",
        "state",
        "version",
        "running",
        "answered",
        "tokens",
        "failed",
        "restarts",
        "mean s",
    ):
        is_text = name in ("server", "state")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=is_text)
    for server in orders.listing(RunDir(root).pool):
        numbers = (server.version, server.running, server.requests, server.tokens, server.failures)
        table.add_row(
            server.name,
            server.state,
            *map(str, numbers),
            str(server.restarts),
            f"{server.seconds_mean:.2f}",
        )
    Console().print(table)


def grow(root: Path, url: str | None, *, timeout_s: float) -> None:
    """One more server: a local one, or the one at `url`."""
    order = orders.AddUrl(orders.checked_url(url)) if url else orders.AddLocal()
    _give(root, order, timeout_s)


def shrink(root: Path, name: str, *, timeout_s: float) -> None:
    """A server goes."""
    _give(root, orders.Drain(name), timeout_s)


def _give(root: Path, order: orders.Order, timeout_s: float) -> None:
    reply = orders.give(RunDir(root).pool, order, timeout_s=timeout_s)
    if reply.exit_code:
        error = AprielError(reply.message)
        error.exit_code = reply.exit_code
        raise error
    print(reply.message)
