"""Do the pages stay quick on a long run? A made run of 10,000 steps and 1,000,000 rollouts, in Chromium.

report     written, its size, opened until its charts are drawn
shelf      read anew; pages of rollouts by random filters, a group, a search that finds nothing early
live page  opened; from a filter to its rows; the longest task of the page's thread while a run goes on
"""

import argparse
import asyncio
import random
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from apriel_mcore.bench.chromium import BINARY, Chromium
from apriel_mcore.bench.made_run import DOMAINS, append_step, make_run
from apriel_mcore.errors import InputError
from apriel_mcore.rundir import RunDir
from apriel_mcore.views import report
from apriel_mcore.views.dash import HOST, Dash
from apriel_mcore.views.runview import RunView
from apriel_mcore.views.shelf import Query

Numbers = dict[str, float | str]
_QUERIES = 40
_TOKEN = "measured-on-loopback"
_CHARTS = "document.querySelectorAll('svg .line').length > 10"
_WATCH_TASKS = (
    "window.longest = 0; new PerformanceObserver((list) => { for (const one of list.getEntries())"
    " window.longest = Math.max(window.longest, one.duration); }).observe({ type: 'longtask' })"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The size of the run, and where it lies."""
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--groups", type=int, default=10, help="a step")
    parser.add_argument("--group-size", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="made if absent, and kept (default: a temporary one)")


def run(args: argparse.Namespace) -> Numbers:
    """Seconds and bytes of report and live page on a long run."""
    if not BINARY:
        raise InputError("no Chromium here: apt-get install chromium")
    with tempfile.TemporaryDirectory(prefix="apriel-bench-page-") as temporary:
        folder: Path = args.folder or Path(temporary) / "run"
        if not folder.exists():
            sizes = {"steps": args.steps, "groups": args.groups, "group_size": args.group_size}
            make_run(folder, done=False, **sizes)
        with Chromium() as browser:
            browser.size(1440, 1000)
            return _shelf(folder) | _report(folder, browser) | _live(folder, browser, args.steps)


def _report(folder: Path, browser: Chromium) -> Numbers:
    seconds, path = _timed(lambda: report.write(folder))
    opened = statistics.median(_opened(browser, path.as_uri()) for _ in range(5))
    size = path.stat().st_size / 1e6
    return {"report.write_s": seconds, "report.mb": size, "report.open_s": opened}


def _opened(browser: Chromium, url: str) -> float:
    browser.open("about:blank", wait="true")
    start = time.perf_counter()
    browser.open(url)
    browser.until(_CHARTS)
    return time.perf_counter() - start


def _shelf(folder: Path) -> Numbers:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    view = RunView(RunDir(folder), "bench")
    seconds, _ = _timed(view.read_all)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    shelf, rng = view.shelf, random.Random(0)
    pages = [_timed(lambda: shelf.page(_random_query(rng)))[0] for _ in range(_QUERIES)]
    groups = [_timed(lambda: shelf.group(rng.randrange(len(shelf) // 10)))[0] for _ in range(_QUERIES)]
    slice_s, found = _timed(lambda: shelf.search(Query(text="nobody says this"), seconds=1.0))
    return {
        "shelf.rollouts": float(len(shelf)),
        "shelf.read_s": seconds,
        "shelf.memory_mb": grown,
        "shelf.page_p50_s": statistics.median(pages),
        "shelf.page_max_s": max(pages),
        "shelf.group_max_s": max(groups),
        "search.rollouts_per_s": found["searched"] / slice_s * len(shelf) / found["of"],
        "frame.seconds": _timed(lambda: view.frame(400))[0],
        "shapes.seconds": _timed(view.shapes)[0],
    }


def _random_query(rng: random.Random) -> Query:
    low = rng.randrange(0, 60)
    return Query(
        domain=rng.choice(["", *DOMAINS]),
        order=rng.choice(["step", "total", "tokens", "advantage"]),
        tokens_min=low,
        tokens_max=low + rng.randrange(5, 80),
        offset=rng.choice([0, 0, 5000]),
    )


def _live(folder: Path, browser: Chromium, steps: int) -> Numbers:
    with _Served(folder) as url:
        opened = _opened(browser, url)
        browser.value(_WATCH_TASKS)
        for step in range(steps + 1, steps + 4):
            append_step(folder, step, steps, seed=step)
            browser.until(f"document.title.includes('{step}/')")
        longest = browser.value("window.longest")
        browser.value("location.hash = '#/0/rollouts'")
        browser.until("document.querySelectorAll('tbody tr').length === 50")
        filters = [_filtered(browser, domain) for domain in DOMAINS]
    return {
        "live.open_s": opened,
        "live.longest_task_s": longest / 1000,
        "live.filter_p50_s": statistics.median(filters),
        "live.filter_max_s": max(filters),
    }


def _filtered(browser: Chromium, domain: str) -> float:
    """From a choice in the filter to its rows, the page's own delay included."""
    start = time.perf_counter()
    browser.value(
        f"(() => {{ const one = document.querySelector('form').elements.domain; one.value = '{domain}';"
        "one.dispatchEvent(new Event('change')); })()"
    )
    rows = "[...document.querySelectorAll('tbody tr')]"
    browser.until(f"{rows}.length === 50 && {rows}.every((row) => row.cells[1].innerText === '{domain}')")
    return time.perf_counter() - start


class _Served:
    """The live page on a thread of its own; its address, at once: the run is read meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._view = RunView(RunDir(folder), "bench")
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    async def _serve(self) -> None:
        runner = web.AppRunner(Dash([self._view], _TOKEN).application())
        await runner.setup()
        await web.TCPSite(runner, HOST, 0).start()
        self._url = f"http://{HOST}:{runner.addresses[0][1]}/?token={_TOKEN}"
        self._done = asyncio.Event()
        self._ready.set()
        await self._done.wait()
        await runner.cleanup()

    def __enter__(self) -> str:
        self._thread.start()
        self._ready.wait()
        return self._url

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()
        self._loop.close()


def _timed[T](work: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result
