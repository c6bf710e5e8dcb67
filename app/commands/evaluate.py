"""`braid evaluate`, and the options of a judged set, which `braid tune` shares."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from app.commands.options import settings_here
from app.evaluation.collect import Load
from app.evaluation.opened_set import SetOptions, open_set, query_bars
from app.evaluation.report import as_dict, write_reports
from app.evaluation.summary import Summary, summarise
from app.evaluation.ways import evaluate
from app.terminal import ERR, OUT, print_json, print_table


def set_options(command: Any) -> Any:
    """Add the options of a judged set to a command; `set_of` makes `SetOptions` of them."""
    for option in (
        click.option(
            "--qrels",
            type=click.Path(dir_okay=False, path_type=Path),
            help="File of judgements; default: found in FOLDER.",
        ),
        click.option("--split", help="Split in qrels/: test, dev, train (default: test if there is one)."),
        click.option(
            "--queries",
            "most_queries",
            type=click.IntRange(2),
            help="Maximum number of queries; a reproducible sample.",
        ),
        click.option("--whole", is_flag=True, help="Rows of the corpus are passages: do not chunk them."),
        click.option("--keep", is_flag=True, help="Keep the index of the set for reuse."),
        click.option("--ignore-identical", is_flag=True, help="Exclude the document with the query's id (ArguAna)."),
        click.option("--workers", type=click.IntRange(1, 32), default=2, show_default=True, help="Queries at once."),
        click.option("--rate", type=click.FloatRange(0.1), help="Maximum queries per second."),
        click.option(
            "--out",
            type=click.Path(file_okay=False, path_type=Path),
            help="Folder for reports; default: reports/<set>.",
        ),
        click.option("--json", "as_json", is_flag=True),
    ):
        command = option(command)
    return command


def set_of(folder: Path, workers: int, rate: float | None, **options: Any) -> SetOptions:
    """Return the `SetOptions` of the options from `set_options`."""
    return SetOptions(folder, load=Load(workers, rate), **options)


@click.command("evaluate")
@click.argument("folder", metavar="SET", type=click.Path(file_okay=False, path_type=Path))
@set_options
def command(folder: Path, as_json: bool, **given: Any) -> None:
    """Measure all ways of searching on a judged set in BEIR's form; a report as HTML, Markdown and JSON.

    A set with a corpus is ingested into an index of its own; one without (as `braid feedback export` writes it) is
    judged against the store's content.
    """
    options, console = set_of(folder, **given), ERR if as_json else OUT
    with open_set(settings_here(), options, console) as opened:
        names = ["Searching"] if opened.where.reranker is None else ["Searching", "Reranking"]
        with query_bars(console, names, len(opened.judged.queries)) as bars:
            found = evaluate(
                opened.judged,
                opened.where,
                opened.tuning,
                load=options.load,
                kept_in=options.reports,
                whole=options.whole if opened.scratch else None,
                progress=bars[0],
                reranked=bars[-1],
            )
        found = replace(found, notes=(*opened.notes, *found.notes))
        console.print("computing intervals and tests ...", style="dim")
        summary = summarise(found)
        written = write_reports(summary, options.reports)
        failed = max(way.failed for way in found.ways)
        opened.unfinished = failed > 0
    if not failed:
        (options.reports / "legs.jsonl").unlink(missing_ok=True)
    if as_json:
        print_json(as_dict(summary))
    else:
        _print(summary)
    for path in written:
        console.print(str(path), markup=False)
    if failed:
        told = f"{failed} of {len(found.dataset.queries)} queries failed; repeating the command searches only these"
        console.print(told, style="red", markup=False)
    sys.exit(1 if failed else 0)


def _print(summary: Summary) -> None:
    table = Table()
    names = ("NDCG@10", "MRR@10", "Recall@100", "MAP", "P@5", "judged@10")
    table.add_column("way")
    for name in (*names, "against the baseline"):
        table.add_column(name, justify="right", overflow="fold")
    for way in summary.ways:
        measured = way.result.measured.means
        compared = way.against_baseline.get("NDCG@10")
        against = ""
        if compared is not None:
            found = compared.comparison
            against = f"{100 * found.mean_difference:+.2f} ({100 * found.low:+.2f} to {100 * found.high:+.2f})"
        low, high = way.intervals["NDCG@10"]
        figures = [f"{100 * measured[name]:.2f}" for name in names]
        figures[0] += f" ({100 * low:.1f}-{100 * high:.1f})"
        table.add_row(way.result.name, *figures, against)
    print_table(OUT, table)
    for remark in (*summary.remarks, *summary.evaluation.notes):
        OUT.print(remark, markup=False)
