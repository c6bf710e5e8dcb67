"""Evaluation reports: JSON with every value, Markdown for a pull request, one HTML page."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import orjson
from markupsafe import Markup

from app.errors import InvalidInput
from app.evaluation.comparison import QueryDifference
from app.evaluation.findings import shown
from app.evaluation.measures import MEASURES
from app.evaluation.plots import alpha_plot, difference_plot
from app.evaluation.results import Evaluation
from app.evaluation.summary import (
    COMPARED,
    HOLES,
    MAIN,
    QUALITY,
    AdjustedComparison,
    Summary,
    p_value,
    signed,
)
from app.values import printable

FORMAT = 1
"""Version of report.json: raised when a field changes its meaning or is removed."""

_LONGEST_QUERY = 240
_MARKDOWN = re.compile(r"([\\`*_{}\[\]#|~$!])")


def write_reports(summary: Summary, folder: Path) -> list[Path]:
    """Write ``report.json``, ``report.md`` and ``report.html``; each atomically replaces an older one.

    Raises:
        InvalidInput: the files can't be written there.
    """
    texts = {
        "report.json": orjson.dumps(as_dict(summary), option=orjson.OPT_APPEND_NEWLINE),
        "report.md": as_markdown(summary).encode(),
        "report.html": as_html(summary).encode(),
    }
    return write_files(folder, texts)


def write_files(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files by name into `folder`, which is created; each atomically replaces an older one.

    Raises:
        InvalidInput: the files can't be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            aside = folder / f".{name}.{os.getpid()}"
            try:
                aside.write_bytes(content)
                aside.replace(folder / name)
            finally:
                aside.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"{shown(str(folder))}: the report can't be written there ({error.strerror}): pass another folder"
        ) from error
    return [folder / name for name in contents]


def as_dict(summary: Summary) -> dict[str, Any]:
    """Return everything, including each query's values, as plain data for JSON."""
    evaluation, judged = summary.evaluation, summary.evaluation.dataset
    return {
        "format": FORMAT,
        "set": {
            "name": judged.name,
            "split": judged.split,
            "queries": len(judged.queries),
            "judgements": sum(map(len, judged.qrels.values())),
            "relevant": _relevant(evaluation),
            "documents": judged.corpus_size,
            "findings": [dataclasses.asdict(finding) for finding in judged.findings],
        },
        "context": evaluation.context,
        "notes": evaluation.notes,
        "remarks": summary.remarks,
        "measures": MEASURES,
        "baseline": evaluation.baseline,
        "ways": [
            {
                "name": way.result.name,
                "group": way.result.group,
                "alpha": way.result.alpha,
                "means": way.result.measured.means,
                "intervals": way.intervals,
                "against_baseline": {name: _compared(found) for name, found in way.against_baseline.items()},
                "seconds": way.result.seconds,
                "ms_p50": way.result.ms_p50,
                "ms_p95": way.result.ms_p95,
                "failed": way.result.failed,
                "missing": way.result.measured.missing,
                "note": way.result.note,
                "per_query": {
                    name: {query: round(value, 6) for query, value in values.items()}
                    for name, values in way.result.measured.per_query.items()
                },
            }
            for way in summary.ways
        ],
        "queries": judged.queries,
    }


def _compared(found: AdjustedComparison) -> dict[str, Any]:
    return {**dataclasses.asdict(found.comparison), "p_adjusted": found.p, "verdict": found.verdict}


def as_markdown(summary: Summary) -> str:
    """Return the report without plots as GitHub Markdown."""
    return page_templates().get_template("report.md.j2").render(_view(summary))


def as_html(summary: Summary) -> str:
    """Return the report as one self-contained page: no script, no font, no link."""
    # the plots come from an XML writer, so their text is escaped
    curves = [Markup(plot) for name in COMPARED if (plot := alpha_plot(summary, name))]  # noqa: S704
    differences = difference_plot(summary)
    return (
        page_templates()
        .get_template("report.html.j2")
        .render(_view(summary), curves=curves, differences=Markup(differences) if differences else None)  # noqa: S704
    )


def _view(summary: Summary) -> dict[str, Any]:
    evaluation = summary.evaluation
    main = summary.challenger.against_baseline[MAIN].comparison if summary.challenger else None
    return {
        "summary": summary,
        "evaluation": evaluation,
        "judged": evaluation.dataset,
        "judgements": sum(map(len, evaluation.dataset.qrels.values())),
        "relevant": _relevant(evaluation),
        "quality": QUALITY,
        "holes": HOLES,
        "main": MAIN,
        "compared": COMPARED,
        "challenger": main,
        "extremes": [
            (title, [(pair, _query(evaluation, pair)) for pair in pairs])
            for title, pairs in (("Biggest wins", main.biggest_wins), ("Biggest losses", main.biggest_losses))
        ]
        if main
        else [],
        "timed": any(way.seconds or way.ms_p50 is not None for way in evaluation.ways),
    }


def _relevant(evaluation: Evaluation) -> int:
    return sum(grade > 0 for grades in evaluation.dataset.qrels.values() for grade in grades.values())


def _query(evaluation: Evaluation, pair: QueryDifference) -> str:
    return shown(evaluation.dataset.queries[pair.query_id], _LONGEST_QUERY)


def page_templates(package: str = __package__) -> jinja2.Environment:
    """Return the templates of `package`, and this one's (the style sheet), with everything escaped."""
    templates = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in dict.fromkeys((package, __package__))]),
        # ids, names and texts of queries are arbitrary text
        autoescape=jinja2.select_autoescape(["html.j2"]),
        finalize=_sanitize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters.update(signed=signed, p=p_value, figure=_figure, md=_escape_markdown)
    return templates


def _figure(value: float, digits: int = 3) -> str:
    return f"{value:,.{digits}f}"


def _sanitize(value: Any) -> Any:
    """Return text on one line, without control characters for the cursor or the writing direction."""
    return printable(" ".join(value.split())) if isinstance(value, str) and not isinstance(value, Markup) else value


def _escape_markdown(text: object) -> str:
    """Return Markdown that shows exactly `text`, on one line, also in a table."""
    line = str(_sanitize(str(text))).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", line)
