"""An evaluation as files: JSON with every value, Markdown for a pull request, one HTML page to look at."""

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
from app.evaluation.results import Evaluation, WayResult
from app.evaluation.summary import COMPARED, HOLES, MAIN, QUALITY, Compared, Summary, p_value, signed, summarise
from app.ingest.sources import printable

__all__ = ["Evaluation", "WayResult", "as_dict", "as_html", "as_markdown", "write_reports"]

FORMAT = 1
"""Of report.json: changes when a field changes its meaning or goes."""

_LONGEST_QUERY = 240
_MARKDOWN = re.compile(r"([\\`*_{}\[\]#|~$!])")


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Everything, with each query's values, as plain data for JSON."""
    return _dict(summarise(evaluation))


def as_markdown(evaluation: Evaluation) -> str:
    """The report without plots, as GitHub's Markdown."""
    return _markdown(summarise(evaluation))


def as_html(evaluation: Evaluation) -> str:
    """The report as one page that needs nothing else: no script, no font, no address."""
    return _html(summarise(evaluation))


def write_reports(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write ``report.json``, ``report.md`` and ``report.html``; older ones are replaced, each at once and whole.

    Raises:
        InvalidInput: they can't be written there.
    """
    summary = summarise(evaluation)
    texts = {
        "report.json": orjson.dumps(_dict(summary), option=orjson.OPT_APPEND_NEWLINE),
        "report.md": _markdown(summary).encode(),
        "report.html": _html(summary).encode(),
    }
    return write_files(folder, texts)


def write_files(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files by name into `folder`, which is made; older ones are replaced, each at once and whole.

    Raises:
        InvalidInput: they can't be written there.
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
            f"{shown(str(folder))}: the report can't be written there ({error.strerror}): name another folder"
        ) from error
    return [folder / name for name in contents]


def _dict(summary: Summary) -> dict[str, Any]:
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


def _compared(found: Compared) -> dict[str, Any]:
    return {**dataclasses.asdict(found.comparison), "p_adjusted": found.p, "verdict": found.verdict}


def _markdown(summary: Summary) -> str:
    return _templates().get_template("report.md.j2").render(_view(summary))


def _html(summary: Summary) -> str:
    # the plots' text went through an XML writer, so it is escaped already
    curves = [Markup(plot) for name in COMPARED if (plot := alpha_plot(summary, name))]  # noqa: S704
    differences = difference_plot(summary)
    return (
        _templates()
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


def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("app.evaluation"),
        # ids, names and texts of queries are whatever somebody wrote into the set
        autoescape=jinja2.select_autoescape(["html.j2"]),
        finalize=_harmless,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters.update(signed=signed, p=p_value, figure=_figure, md=_escape_markdown)
    return templates


def _figure(value: float, digits: int = 3) -> str:
    return f"{value:,.{digits}f}"


def _harmless(value: Any) -> Any:
    """Text on one line, without what moves a cursor or turns the direction of writing."""
    return printable(" ".join(value.split())) if isinstance(value, str) and not isinstance(value, Markup) else value


def _escape_markdown(text: object) -> str:
    """`text` as Markdown that shows exactly it, on one line, in a table too."""
    line = str(_harmless(str(text))).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", line)
