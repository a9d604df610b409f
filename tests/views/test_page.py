"""The page in a real browser: every view, by keyboard, on a phone, in the dark, while a run goes on."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from apriel_mcore.bench.chromium import BINARY, Chromium
from apriel_mcore.bench.made_run import append_step, make_events, make_run
from apriel_mcore.views import report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(
        not BINARY, reason="NO CHROMIUM HERE: the page is untested (apt-get install chromium)"
    ),
]
VIEWS = ("overview", "domains", "trainer", "time", "servers", "heldout", "rollouts", "metrics")
# The tab of the view that is drawn: the address changes a moment before it.
CHOSEN = "document.querySelector('[role=tab][aria-selected=true]')"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "one", steps=30, groups=6, group_size=4, done=False)
    make_run(folder / "two", steps=20, groups=4, group_size=4, seed=1)
    return folder


@pytest.fixture(scope="module")
def address(runs: Path) -> Iterator[str]:
    """Of a live page over both runs, with its token."""
    command = [sys.executable, "-m", "apriel_mcore.cli", "dash", str(runs), "--port", "0"]
    dash = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert dash.stdout
    found = re.search(r"http://\S+", dash.stdout.readline())
    assert found
    yield found[0]
    dash.terminate()
    dash.wait(timeout=20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as chromium:
        yield chromium


@pytest.fixture(autouse=True)
def desk(browser: Chromium) -> Iterator[None]:
    """A large bright screen before, and no error of the page after each test."""
    browser.size(1440, 1000)
    browser.scheme("light")
    browser.console.clear()
    yield
    assert browser.console == []


def go(browser: Chromium, view: str, run: int = 0) -> None:
    browser.value(f"location.hash = '#/{run}/{view}'")
    browser.until(f"{CHOSEN}?.hash === '#/{run}/{view}'")


def lines_drawn(browser: Chromium) -> int:
    return browser.value("document.querySelectorAll('svg .line, svg .area').length")


def overflows(browser: Chromium) -> int:
    """Pixels by which the page is wider than the screen."""
    return browser.value("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def test_every_view_of_a_report_draws_without_an_error(browser: Chromium, runs: Path) -> None:
    browser.open(report.write(runs / "two").as_uri())
    for view in VIEWS:
        go(browser, view)
        browser.until("document.querySelector('main').innerText.length > 60")
        if view in ("overview", "trainer", "time", "metrics"):
            browser.until("document.querySelectorAll('svg .line, svg .area').length > 3")
    go(browser, "rollouts")
    browser.until("document.querySelectorAll('tbody tr').length === 50")
    assert "the report carries" in browser.value("document.querySelector('main').innerText")


def test_a_live_page_follows_its_run(browser: Chromium, address: str, runs: Path) -> None:
    browser.open(address)
    browser.until("document.querySelector('.tile b')?.textContent === '30'")
    assert "token" not in browser.value("location.href")
    append_step(runs / "one", 31, 30, seed=5)
    browser.until("document.querySelector('.tile b').textContent === '31'")
    browser.until("document.title.includes('31/')")


def test_a_silent_rank_is_named(browser: Chromium, address: str, runs: Path) -> None:
    pulse = runs / "one" / "pulse" / "rank3.json"
    pulse.parent.mkdir()
    silent = {"rank": 3, "host": "node7", "pid": 41, "time": time.time() - 90, "doing": "train", "since": 0.0}
    try:
        pulse.write_text(json.dumps(silent))
        browser.open(address)
        browser.until("document.querySelector('.pill')?.textContent === 'stalled'")
        assert "rank 3 (pid 41 on node7)" in browser.value("document.querySelector('.note').innerText")
        go(browser, "servers")
        browser.until("document.querySelector('main').innerText.includes('Trainer ranks')")
    finally:
        pulse.unlink()


def test_runs_are_compared(browser: Chromium, address: str) -> None:
    browser.open(address)
    go(browser, "compare")
    browser.until("document.querySelectorAll('svg .line').length >= 6")
    text = browser.value("document.querySelector('main').innerText")
    assert "one" in text and "two" in text
    assert "train.num_steps" in text, "the recipes' differences"
    browser.value("document.querySelector('header select').selectedIndex = 1")
    browser.value("document.querySelector('header select').dispatchEvent(new Event('change'))")
    browser.until("document.title.startsWith('two')")


def test_rollouts_by_keyboard(browser: Chromium, address: str) -> None:
    browser.open(address)
    browser.until("document.querySelector('.tile small')?.textContent.includes('of 30')")
    browser.key("/")
    browser.until("document.activeElement?.name === 'text'")
    for letter in "answer is 1":
        browser.key(letter)
    browser.until("document.querySelector('mark') || document.querySelectorAll('tbody tr').length > 0")
    browser.until("document.querySelector('main [role=status]').innerText.includes('hit')")
    browser.value("document.querySelector('tbody tr').focus()")
    browser.key("ArrowDown")
    assert browser.value("document.activeElement.dataset.i") == "1"
    browser.key("Enter")
    browser.until("document.querySelector('dialog[open] .siblings article')")
    assert browser.value("document.querySelectorAll('dialog .siblings article').length") in (4, 8)
    assert browser.value("document.querySelectorAll('dialog .chosen').length") == 1
    assert "answer is 1" in browser.value("document.querySelector('dialog mark').textContent.toLowerCase()")
    for word in ("advantage", "reward", "total"):
        assert word in browser.value("document.querySelector('dialog .siblings').innerText")
    browser.key("Escape")
    browser.until("!document.querySelector('dialog[open]')")
    assert browser.value("document.activeElement.dataset.i") == "1", "the reader is back where he was"


def test_filters_narrow_the_rows(browser: Chromium, address: str) -> None:
    browser.open(address)
    go(browser, "rollouts")
    browser.until("document.querySelectorAll('tbody tr').length === 50")
    browser.value(
        "(() => { const form = document.querySelector('form'); form.elements.domain.value = 'code';"
        "form.elements.tokens_min.value = 10; form.elements.order.value = 'tokens';"
        "form.elements.domain.dispatchEvent(new Event('change')); })()"
    )
    browser.until(
        "[...document.querySelectorAll('tbody tr')].length > 0 &&"
        "[...document.querySelectorAll('tbody tr')].every((row) => row.cells[1].innerText === 'code')"
    )
    tokens = browser.value(
        "[...document.querySelectorAll('tbody tr')].map((row) => parseInt(row.cells[7].innerText))"
    )
    assert tokens == sorted(tokens, reverse=True)
    assert min(tokens) >= 10


def test_tabs_and_charts_by_keyboard(browser: Chromium, address: str) -> None:
    browser.open(address)
    browser.value(f"{CHOSEN}.focus()")
    browser.key("ArrowRight")
    browser.until(f"{CHOSEN}?.hash === '#/0/domains' && document.activeElement === {CHOSEN}")
    browser.value("document.activeElement.blur()")
    browser.key("1")
    browser.until(f"{CHOSEN}?.hash === '#/0/overview' && document.querySelector('svg .line')")
    browser.value("document.querySelector('figure svg').focus()")
    browser.key("ArrowLeft")
    tip = "document.querySelector('figure .tip')"
    browser.until(f"!{tip}.hidden")
    step = browser.value(f"{tip}.querySelector('header').innerText")
    browser.key("ArrowLeft")
    assert browser.value(f"{tip}.querySelector('header').innerText") != step
    assert browser.value(f"{tip}.querySelectorAll('li').length") == 5
    browser.key("Escape")
    assert browser.value(f"{tip}.hidden")


def test_a_range_is_dragged_and_given_back(browser: Chromium, address: str) -> None:
    browser.open(address)
    browser.until("document.querySelector('svg .line')")
    box = browser.value("(({x, y}) => [x, y])(document.querySelector('figure svg').getBoundingClientRect())")
    for kind, x in (("mousePressed", 150), ("mouseMoved", 300), ("mouseReleased", 300)):
        place = {"x": box[0] + x, "y": box[1] + 50}
        browser.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)
    browser.until("document.querySelectorAll('.tools input')[1].value !== ''")
    first, last = browser.value(
        "[...document.querySelectorAll('.tools input')].map((one) => Number(one.value))"
    )[:2]
    assert 1 < first < last < 30
    browser.value("document.querySelector('.tools button').click()")
    browser.until("document.querySelectorAll('.tools input')[1].value === ''")


def test_a_phone_scrolls_in_one_direction(browser: Chromium, address: str) -> None:
    browser.size(390, 844)
    browser.open(address)
    for view in VIEWS:
        go(browser, view)
        browser.until("document.querySelector('main').innerText.length > 60")
        assert overflows(browser) <= 0, view


def test_the_dark_is_dark(browser: Chromium, address: str) -> None:
    def brightness(what: str) -> float:
        colour = browser.value(f"getComputedStyle(document.body).{what}")
        return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3

    browser.open(address)
    assert brightness("backgroundColor") > 200 > 80 > brightness("color")
    browser.scheme("dark")
    assert brightness("backgroundColor") < 40 < 180 < brightness("color")
    browser.value("document.querySelector('.theme').click()")
    assert brightness("backgroundColor") > 200, "the reader's choice outweighs the system's"
    browser.value("document.querySelector('.theme').click(); document.querySelector('.theme').click()")


def test_ten_thousand_steps_open_at_once(browser: Chromium, tmp_path: Path) -> None:
    path = report.write(make_events(tmp_path / "long", steps=10_000))
    assert path.stat().st_size < 5_000_000
    start = time.monotonic()
    browser.open(path.as_uri())
    browser.until("document.querySelectorAll('svg .line').length > 10")
    assert time.monotonic() - start < 2.0
    content = "JSON.parse(document.getElementById('content').textContent)"
    spike = browser.value(f"Math.max(...{content}.steps.series.grad_norm[2])")
    assert spike > 10, "the one spike of 10,000 steps is still there"
