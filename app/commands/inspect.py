"""`braid inspect`: examine any hybrid index, read-only."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from app.commands.options import settings_here
from app.embedding.text_encoder import load_text_encoder
from app.errors import InvalidInput
from app.evaluation.report import write_files
from app.inspection.findings import Finding, Severity
from app.inspection.queries import read_query_set
from app.inspection.reader import Reader, TimeBudget
from app.inspection.report import as_dict, as_html
from app.inspection.run import inspect
from app.inspection.subject import SampleSizes, open_subject
from app.terminal import ERR, OUT, plain, print_json

_COLOURS = {
    Severity.CRITICAL: "bold red",
    Severity.WARNING: "yellow",
    Severity.NOTE: "cyan",
    Severity.SKIPPED: "dim",
    Severity.OK: "green",
}
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("inspect")
@click.option("--url", help="Address of OpenSearch (BRAID_OPENSEARCH_URL); user and password as there.")
@click.option("--index", "name", required=True, help="Index, alias or pattern.")
@click.option("--text", help="Text field; found by itself if there is one.")
@click.option("--vector", help="knn_vector field; found by itself if there is one.")
@click.option("--pipeline", help="Search pipeline that your searches name.  [default: the index's]")
@click.option("--queries", type=_FILE, help="Queries: JSON Lines with _id, text and maybe vector, or TSV.")
@click.option("--qrels", type=_FILE, help="Judgements of these queries, in BEIR's or TREC's form.")
@click.option("--id-field", help="Keyword field with the ids that judgements name.  [default: _id]")
@click.option("--documents", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Sampled documents.")
@click.option("--probes", type=click.IntRange(1, 10_000), default=30, show_default=True, help="Queries of a check.")
@click.option("--judged", type=click.IntRange(2), default=200, show_default=True, help="Maximum judged queries.")
@click.option("--timeout", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Seconds of a request.")
@click.option("--budget", type=click.FloatRange(1), default=60.0, show_default=True, help="Seconds of all checks.")
@click.option("--html", type=_FILE, help="Write the report as one HTML page with plots.")
@click.option("--json", "as_json", is_flag=True)
def command(
    url: str | None,
    name: str,
    text: str | None,
    vector: str | None,
    pipeline: str | None,
    queries: Path | None,
    qrels: Path | None,
    id_field: str | None,
    documents: int,
    probes: int,
    judged: int,
    timeout: float,
    budget: float,
    html: Path | None,
    as_json: bool,
) -> None:
    """Examine any hybrid index on OpenSearch 2.19 or newer, read-only: scores, fusion, recall, shards.

    It need not be Braid's. Exit code 1 if a finding is critical.
    """
    if qrels is not None and queries is None:
        raise InvalidInput("--qrels names judgements of queries: pass their texts by --queries")
    settings = settings_here(opensearch_url=url)
    where = settings.opensearch.model_copy(update={"timeout_s": timeout})
    reader = Reader(where, TimeBudget.after(int(budget * 1000)))
    try:
        sizes = SampleSizes(documents, probes, judged)
        subject = open_subject(reader, name, text, vector, sizes=sizes, id_field=id_field, pipeline=pipeline)
        dimension = subject.vector.dimension if subject.vector else None
        given = read_query_set(queries, qrels, dimension) if queries else None
        found = inspect(
            subject,
            given,
            lambda: load_text_encoder(settings),
            progress=lambda check: ERR.print(f"{check} ...", style="dim", markup=False),
        )
    finally:
        reader.close()
    if html is not None:
        write_files(html.parent, {html.name: as_html(found).encode()})
    if as_json:
        print_json(as_dict(found))
    else:
        for item in found.findings:
            _print(item)
    sys.exit(1 if found.worst is Severity.CRITICAL else 0)


def _print(item: Finding) -> None:
    OUT.print(f"[{_COLOURS[item.severity]}]{item.severity.value}[/]  {plain(item.title, lines=False)} ({item.check})")
    OUT.print(f"    {plain(item.evidence, lines=False)}")
    if item.remedy:
        OUT.print(f"    -> {plain(item.remedy, lines=False)}")
