"""Plots of an inspection as inline SVG; colours and fonts are those of the page, and all text is escaped."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from app.evaluation.findings import shown
from app.inspection.findings import Bars, Curve

_WIDTH, _LABEL, _ROW, _TOP = 640.0, 170.0, 22.0, 8.0
_NAME = 26
_LINES = 6
"""Number of colours that the page's style sheet has for lines."""


def draw_bars(plot: Bars) -> Markup:
    """Draw one bar a label, and lines for the limits."""
    most = max((*plot.values.values(), *plot.limits.values(), 1e-9))
    room = _WIDTH - _LABEL - 70
    height = _TOP + _ROW * len(plot.values) + (18 if plot.limits else 4)
    parts = []
    for row, (name, value) in enumerate(plot.values.items()):
        y = _TOP + row * _ROW
        parts += [
            _text(_LABEL - 8, y + 14, name, "end"),
            _tag("rect", x=_LABEL, y=y + 3, width=max(1.0, room * value / most), height=_ROW - 8, fill="var(--plot-1)"),
            _text(_LABEL + room * value / most + 6, y + 14, f"{value:,.3g}"),
        ]
    for name, value in plot.limits.items():
        x = _LABEL + room * value / most
        parts += [_line(x, _TOP, x, height - 16, "var(--bad)"), _text(x, height - 4, name, "middle")]
    return _svg(f"{plot.title}, in {plot.unit}", height, parts)


def draw_curve(plot: Curve) -> Markup:
    """Draw a curve with its band, and values that do not depend on x as lines with their names at the right."""
    left, right, top, bottom = 52.0, 170.0, 14.0, 40.0
    height = 300.0
    values = [value for point in plot.points for value in point[1:]] + list(plot.lines.values())
    low, high = min(values), max(values)
    spread = (high - low) or 1.0
    first, last = plot.points[0][0], plot.points[-1][0]

    def at(x: float, value: float) -> tuple[float, float]:
        return (
            left + (_WIDTH - left - right) * (x - first) / ((last - first) or 1.0),
            top + (height - top - bottom) * (high - value) / spread,
        )

    band = [at(x, upper) for x, _, _, upper in plot.points] + [at(x, lower) for x, _, lower, _ in plot.points[::-1]]
    best = max(plot.points, key=lambda point: point[1])
    parts = [
        _tag("polygon", points=_points(band), fill="var(--plot-1)", opacity=0.16),
        _tag(
            "polyline",
            points=_points(at(x, mean) for x, mean, _, _ in plot.points),
            fill="none",
            stroke="var(--plot-1)",
            stroke_width=2,
        ),
        _tag("circle", cx=at(*best[:2])[0], cy=at(*best[:2])[1], r=4, fill="var(--plot-1)"),
        _text((left + _WIDTH - right) / 2, height - 6, plot.x, "middle", most=60),
    ]
    for x in (first, (first + last) / 2, last):
        parts.append(_text(at(x, low)[0], height - bottom + 18, f"{x:g}", "middle"))
    for value in (low, (low + high) / 2, high):
        y = at(first, value)[1]
        parts += [_line(left, y, _WIDTH - right, y, "var(--line)"), _text(left - 6, y + 4, f"{value:.3f}", "end")]
    reached = top - 14
    for number, (name, value) in enumerate(sorted(plot.lines.items(), key=lambda item: -item[1])):
        colour = f"var(--plot-{2 + number % (_LINES - 1)})"
        y = at(first, value)[1]
        reached = max(y, reached + 14)
        parts += [
            _line(left, y, _WIDTH - right, y, colour, "5 3"),
            _text(_WIDTH - right + 6, reached + 4, name, fill=colour),
        ]
    return _svg(f"{plot.title}, {plot.unit}", height, parts)


def _svg(described: str, height: float, parts: Iterable[Markup]) -> Markup:
    opening = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}" font-size="12">').format(
        f"{_WIDTH:g}", f"{height:g}", shown(described)
    )
    return opening + Markup("").join(parts) + Markup("</svg>")


def _tag(name: str, **attributes: object) -> Markup:
    pairs = (
        Markup('{}="{}"').format(key.replace("_", "-"), f"{value:.1f}" if isinstance(value, float) else value)
        for key, value in attributes.items()
    )
    return Markup("<{} {}/>").format(name, Markup(" ").join(pairs))


def _line(x1: float, y1: float, x2: float, y2: float, stroke: str, dashes: str = "none") -> Markup:
    return _tag("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=stroke, stroke_dasharray=dashes)


def _text(x: float, y: float, text: str, anchor: str = "start", fill: str = "var(--ink)", most: int = _NAME) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}" fill="{}">{}</text>').format(
        f"{x:.1f}", f"{y:.1f}", anchor, fill, shown(text, most)
    )


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
