"""Small SVG charts that read in light, in dark and on a phone: lines and bands."""

from collections.abc import Sequence
from html import escape

import msgspec

WIDTH, HEIGHT = 460, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 26

Points = Sequence[tuple[float, float]]


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One named line; `band` draws (x, low, high) behind it; `dashed` marks a target."""

    name: str
    color: str
    points: Points
    band: Sequence[tuple[float, float, float]] = ()
    dashed: bool = False


class _Axes(msgspec.Struct, frozen=True):
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        span = self.x_high - self.x_low or 1.0
        return _LEFT + (value - self.x_low) / span * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        span = self.y_high - self.y_low or 1.0
        return HEIGHT - _BOTTOM - (value - self.y_low) / span * (HEIGHT - _TOP - _BOTTOM)


def lines(series: Sequence[Series], *, title: str, unit: str = "", y_low: float | None = 0.0) -> str:
    """A figure with one line per series over steps; `y_low=None` fits the axis to the values."""
    shown = [one for one in series if one.points]
    if not shown:
        return figure(title, unit, "<p>no steps yet</p>", [])
    axes = _axes(shown, y_low)
    body = "".join(_band(one, axes) for one in shown) + "".join(_line(one, axes) for one in shown)
    legend = [(one.name, one.color) for one in shown if not one.dashed]
    return figure(title, unit, _svg(title, _grid(axes) + body), legend)


def figure(title: str, unit: str, body: str, legend: Sequence[tuple[str, str]]) -> str:
    """A titled box around a chart with its legend."""
    keys = "".join(f'<li><i style="background:{color}"></i>{escape(name)}</li>' for name, color in legend)
    suffix = f" <small>{escape(unit)}</small>" if unit else ""
    caption = f"<figcaption>{escape(title)}{suffix}</figcaption>"
    return f'<figure>{caption}{body}<ul class="legend">{keys}</ul></figure>'


def _axes(series: Sequence[Series], y_low: float | None) -> _Axes:
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points]
    ys += [value for one in series for _, low, high in one.band for value in (low, high)]
    low = min(ys) if y_low is None else min(y_low, *ys)
    high = max(ys)
    return _Axes(min(xs), max(xs), low, high if high > low else low + 1.0)


def _svg(title: str, body: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{body}</svg>'


def _grid(axes: _Axes) -> str:
    rows = ""
    for i in range(5):
        value = axes.y_low + (axes.y_high - axes.y_low) * i / 4
        y = axes.y(value)
        rows += f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        rows += f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_tick(value)}</text>'
    for value in sorted({round(axes.x_low), round((axes.x_low + axes.x_high) / 2), round(axes.x_high)}):
        rows += f'<text x="{axes.x(value):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{value:g}</text>'
    return rows


def _tick(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value / 1000:.3g}k"


def _line(one: Series, axes: _Axes) -> str:
    path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in one.points)
    dash = ' stroke-dasharray="4 4" opacity="0.7"' if one.dashed else ""
    last_x, last_y = one.points[-1]
    dot = f'<circle cx="{axes.x(last_x):.1f}" cy="{axes.y(last_y):.1f}" r="2.5" fill="{one.color}"/>'
    return (
        f'<polyline points="{path}" fill="none" stroke="{one.color}" stroke-width="1.8"{dash}>'
        f"<title>{escape(one.name)}: {last_y:.3g} at step {last_x:g}</title></polyline>{dot}"
    )


def _band(one: Series, axes: _Axes) -> str:
    if not one.band:
        return ""
    upper = [f"{axes.x(x):.1f},{axes.y(high):.1f}" for x, _, high in one.band]
    lower = [f"{axes.x(x):.1f},{axes.y(low):.1f}" for x, low, _ in reversed(one.band)]
    return f'<polygon points="{" ".join(upper + lower)}" fill="{one.color}" opacity="0.12"/>'
