"""Accuracy against tokens, one curve a model: an SVG that stands alone, in light and in dark."""

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log2

import msgspec

WIDTH, HEIGHT = 760, 430
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 200, 34, 44
COLORS = ("#3b7dd8", "#d9632b", "#2e9e6b", "#a05cc8", "#c29a1c", "#c8446b", "#4aa5b5")
PUBLISHED = "#8a8a8a"
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.t{font-size:14px;font-weight:600}.s{font-size:11px}"
    ".g{stroke:#8884;stroke-width:1}.b{fill:#fff}.f{stroke:#888;stroke-width:7;stroke-opacity:.22;fill:none}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.b{fill:#16181c}}"
)


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A measured or reported point, with its intervals where there are any (equal ends: none)."""

    label: str
    tokens: float
    tokens_low: float
    tokens_high: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """One model's marks, by budget."""

    name: str
    color: str
    marks: Sequence[Mark]
    dashed: bool = False
    """Forced answers, or reported ones."""


class _Frame(msgspec.Struct, frozen=True):
    x_low: float
    x_high: float
    """log2 of tokens."""
    y_low: float
    y_high: float

    def x(self, tokens: float) -> float:
        share = (log2(max(tokens, 2**self.x_low)) - self.x_low) / (self.x_high - self.x_low)
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def y(self, accuracy: float) -> float:
        share = (accuracy - self.y_low) / (self.y_high - self.y_low)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)


def svg(curves: Sequence[Curve], *, title: str) -> str:
    """The plot; the broad grey line joins the points that no other beats in both accuracy and tokens."""
    marks = [mark for curve in curves for mark in curve.marks]
    assert marks, "nothing to draw"
    frame = _frame(marks)
    body = _grid(frame) + _frontier(marks, frame)
    body += "".join(_curve(curve, frame) for curve in curves) + _legend(curves)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}"><style>{_STYLE}</style>'
        f'<rect class="b" width="{WIDTH}" height="{HEIGHT}"/>'
        f'<text class="t" x="{_LEFT}" y="20">{escape(title)}</text>{body}</svg>'
    )


def best(marks: Sequence[Mark]) -> list[Mark]:
    """The Pareto frontier by rising tokens: each has a higher accuracy than all that use no more tokens."""
    kept: list[Mark] = []
    for mark in sorted(marks, key=lambda one: (one.tokens, -one.accuracy)):
        if not kept or mark.accuracy > kept[-1].accuracy:
            kept.append(mark)
    return kept


def _frame(marks: Sequence[Mark]) -> _Frame:
    """Whole powers of two, and tenths of accuracy, around everything."""
    x_low = floor(log2(max(1.0, min(mark.tokens_low for mark in marks))) - 0.1)
    x_high = ceil(log2(max(1.0, max(mark.tokens_high for mark in marks))) + 0.1)
    y_low = floor(10 * max(0.0, min(mark.accuracy_low for mark in marks))) / 10
    y_high = ceil(10 * max(mark.accuracy_high for mark in marks)) / 10
    return _Frame(x_low, max(x_high, x_low + 1), y_low, max(y_high, y_low + 0.1))


def _grid(frame: _Frame) -> str:
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts: list[str] = []
    for power in range(int(frame.x_low), int(frame.x_high) + 1):
        x = frame.x(2**power)
        parts.append(f'<line class="g" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{_count(2**power)}</text>')
    steps = round((frame.y_high - frame.y_low) * 10)
    for number in range(steps + 1):
        accuracy = frame.y_low + number / 10
        y = frame.y(accuracy)
        parts.append(f'<line class="g" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{accuracy:.1f}</text>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">mean tokens of an answer</text>')
    y = (_TOP + bottom) / 2
    parts.append(f'<text transform="rotate(-90 16 {y})" x="16" y="{y}" text-anchor="middle">accuracy</text>')
    return "".join(parts)


def _frontier(marks: Sequence[Mark], frame: _Frame) -> str:
    """A staircase: between two points the lower one is what can be had."""
    steps: list[str] = []
    for mark in best(marks):
        if steps:
            steps.append(f"H{frame.x(mark.tokens):.1f}")
        steps.append(f"{'V' if steps else f'M{frame.x(mark.tokens):.1f},'}{frame.y(mark.accuracy):.1f}")
    return f'<path class="f" d="{" ".join(steps)}"/>'


def _curve(curve: Curve, frame: _Frame) -> str:
    path = " ".join(f"{frame.x(m.tokens):.1f},{frame.y(m.accuracy):.1f}" for m in curve.marks)
    dash = ' stroke-dasharray="5 4"' if curve.dashed else ""
    line = f'<polyline points="{path}" fill="none" stroke="{curve.color}" stroke-width="1.8"{dash}/>'
    return line + "".join(_mark(mark, curve, frame) for mark in curve.marks)


def _mark(mark: Mark, curve: Curve, frame: _Frame) -> str:
    x, y = frame.x(mark.tokens), frame.y(mark.accuracy)
    whiskers = (
        f'<path d="M{x:.1f},{frame.y(mark.accuracy_low):.1f}V{frame.y(mark.accuracy_high):.1f}'
        f'M{frame.x(mark.tokens_low):.1f},{y:.1f}H{frame.x(mark.tokens_high):.1f}" '
        f'stroke="{curve.color}" stroke-width="1" opacity="0.55"/>'
    )
    fill = "none" if curve.dashed else curve.color
    words = escape(f"{curve.name}, {mark.label}: {mark.accuracy:.3f} at {mark.tokens:.1f} tokens")
    return (
        f'{whiskers}<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{curve.color}" '
        f'stroke-width="1.6"><title>{words}</title></circle>'
        f'<text class="s" x="{x + 7:.1f}" y="{y - 6:.1f}">{escape(mark.label)}</text>'
    )


def _legend(curves: Sequence[Curve]) -> str:
    parts: list[str] = []
    for number, curve in enumerate(curves):
        y = _TOP + 10 + 20 * number
        x = WIDTH - _RIGHT + 14
        fill = "none" if curve.dashed else curve.color
        parts.append(
            f'<circle cx="{x}" cy="{y}" r="4" fill="{fill}" stroke="{curve.color}" stroke-width="1.6"/>'
        )
        parts.append(f'<text x="{x + 10}" y="{y + 4}">{escape(curve.name)}</text>')
    return "".join(parts)


def _count(number: int) -> str:
    return f"{number >> 10}K" if number >= 1024 else str(number)
