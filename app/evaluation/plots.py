"""Plots of a report as inline SVG; colours and fonts are those of the page, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lxml import etree

from app.evaluation.comparison import SAME
from app.evaluation.results import WayResult
from app.evaluation.summary import MAIN, Summary, WaySummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# placeholder colours for Matplotlib, replaced by the variables of the page's style sheet
_INK, _FAINT, _GOOD, _BAD = "#000001", "#000002", "#000003", "#000004"
_LINES = ("#000011", "#000012", "#000013", "#000014", "#000015", "#000016")
_VARIABLES = {
    _INK: "var(--ink)",
    _FAINT: "var(--line)",
    _GOOD: "var(--good)",
    _BAD: "var(--bad)",
    **{colour: f"var(--plot-{number})" for number, colour in enumerate(_LINES, 1)},
}
_COLOUR = re.compile("|".join(_VARIABLES))
_FAMILY = re.compile(r"font-family: [^;]*")
_LONGEST_NAME = 26
_SVG = "{http://www.w3.org/2000/svg}"


def alpha_plot(summary: Summary, measure: str) -> str | None:
    """Plot `measure` by dense share with its 95 % band; other ways are lines. None if no way has a share."""
    curves: dict[str, list[WaySummary]] = {}
    for way in summary.ways:
        if way.result.alpha is not None:
            curves.setdefault(way.result.group, []).append(way)
    if not curves:
        return None
    figure, axes = _axes(5.8, 3.6)
    colours = iter(_LINES * (1 + len(summary.ways)))
    labels: list[tuple[float, str, str]] = []
    for group, ways in curves.items():
        ways.sort(key=lambda way: way.result.alpha or 0.0)
        shares = [way.result.alpha or 0.0 for way in ways]
        means = [way.result.measured.means[measure] for way in ways]
        low, high = zip(*(way.intervals[measure] for way in ways), strict=True)
        colour = next(colours)
        axes.fill_between(shares, low, high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(shares, means, color=colour, linewidth=2, marker="o", markersize=4)
        labels.append((means[-1], group, colour))
    for reference in _references(summary, measure):
        colour = next(colours)
        mean = reference.measured.means[measure]
        axes.axhline(mean, color=colour, linewidth=1.3, linestyle=(0, (5, 3)))
        labels.append((mean, reference.name, colour))
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0\nlexical", "0.2", "0.4", "0.6", "0.8", "1\ndense"])
    axes.set_xlabel("alpha, the dense leg's share")
    axes.set_ylabel(measure)
    _label_right(axes, labels)
    return _svg(figure, f"alpha-{measure}", f"{measure} over alpha, with the other ways as lines")


def difference_plot(summary: Summary) -> str | None:
    """Plot the sorted differences of single queries between challenger and baseline. None without a challenger."""
    if summary.challenger is None:
        return None
    comparison = summary.challenger.against_baseline[MAIN].comparison
    baseline = next(way for way in summary.evaluation.ways if way.name == comparison.baseline)
    after, before = summary.challenger.result.measured.per_query[MAIN], baseline.measured.per_query[MAIN]
    differences = sorted((after[query] - before[query] for query in before), reverse=True)
    figure, axes = _axes(9.6, 3.2)
    edges = list(range(len(differences) + 1))
    # one outline each: bars would be one path per query
    axes.stairs([max(value, 0.0) for value in differences], edges, fill=True, color=_GOOD, linewidth=0)
    axes.stairs([min(value, 0.0) for value in differences], edges, fill=True, color=_BAD, linewidth=0)
    axes.axhline(0, color=_INK, linewidth=0.8)
    furthest = max(SAME, *map(abs, differences)) * 1.1
    axes.set_ylim(-furthest, furthest)
    axes.set_xlim(0, len(differences))
    counts = f"{comparison.wins} better, {comparison.ties} the same, {comparison.losses} worse"
    axes.set_xlabel(f"{len(differences)} queries by difference: {counts}", parse_math=False)
    axes.set_ylabel(f"difference in {MAIN}")
    return _svg(figure, "differences", f"Differences of single queries in {MAIN}, sorted: {counts}")


def _references(summary: Summary, measure: str) -> list[WayResult]:
    """Return the ways to draw as lines: all single legs, and the best of each other group."""
    best: dict[str, WayResult] = {}
    legs: list[WayResult] = []
    for way in summary.evaluation.ways:
        if way.alpha is not None:
            continue
        if way.group == "single leg":
            legs.append(way)
        elif way.group not in best or way.measured.means[measure] > best[way.group].measured.means[measure]:
            best[way.group] = way
    return [*legs, *best.values()]


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Create an empty plot; sizes in inches. pyplot is avoided: it keeps figures and sets a backend for the whole
    process.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(colors=_INK, labelsize=9, color=_FAINT)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    axes.grid(axis="y", color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _label_right(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Write names at the right edge next to their lines, moved apart where they overlap."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.065
    reached = low - gap
    for height, name, colour in sorted(labels):
        reached = max(height, reached + gap)
        short = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
        axes.annotate(
            short, (1.0, reached), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
            va="center", fontsize=9, color=colour, annotation_clip=False, parse_math=False,
        )  # fmt: skip


def _svg(figure: Figure, name: str, description: str) -> str:
    """Return `figure` as an ``<svg>`` element for an HTML page; the output is reproducible."""
    import matplotlib

    buffer = io.BytesIO()
    # these have only global switches; text stays text, and ids are reproducible
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "text.usetex": False}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    root = etree.fromstring(buffer.getvalue(), etree.XMLParser(no_network=True, load_dtd=False, resolve_entities=False))
    for element in root.iter(f"{_SVG}*"):
        for attribute, value in element.attrib.items():
            if attribute == "id":
                element.set("id", f"{name}-{value}")
            elif attribute.endswith("href") and str(value).startswith("#"):
                element.set(attribute, f"#{name}-{str(value)[1:]}")
            elif attribute == "clip-path":
                element.set(attribute, str(value).replace("url(#", f"url(#{name}-"))
            elif attribute == "style":
                style = _COLOUR.sub(lambda match: _VARIABLES[match[0]], str(value))
                element.set("style", _FAMILY.sub("font-family: inherit", style))
    for unneeded in ("width", "height", "version"):
        root.attrib.pop(unneeded, None)
    root.set("role", "img")
    root.set("aria-label", description)
    return etree.tostring(root, encoding="unicode")
