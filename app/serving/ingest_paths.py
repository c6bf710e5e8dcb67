"""Ingest of paths for `braid ingest` and `braid up`: open the parts, run, print the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from app.cache.connection import RedisConnection
from app.cache.generation import IndexGeneration
from app.config import Settings
from app.ingest.progress import ProgressBar
from app.ingest.run import IngestOptions, ingest_paths
from app.ingest.run_report import IngestReport
from app.search.readiness_gate import require_writable
from app.serving.opening import open_store
from app.terminal import print_json
from app.values import printable

_MOST_FAILURES = 50


def ingest_and_report(
    settings: Settings,
    paths: Sequence[Path],
    options: IngestOptions,
    *,
    as_json: bool,
    console: Console,
) -> bool:
    """Ingest `paths` and print the report; return True if everything was ingested.

    Raises:
        StoreNotReady: the cluster's templates do not match this version, or an index is read-only: nothing was written.
        BraidError: as `ingest_paths`.
    """
    store = open_store(settings)
    require_writable(store.state(store.rendered.tuning))
    connection = RedisConnection(settings.redis)
    generation = IndexGeneration(connection)
    tenant = options.tenant or settings.access.tenant

    def announce(revoking: bool) -> None:
        generation.advance(tenant, revoking=revoking)

    try:
        with ProgressBar(console) as progress:
            report = ingest_paths(
                paths,
                settings=settings,
                cluster=store.cluster,
                encoder=store.encoder,
                options=options,
                progress=progress,
                announce=announce,
            )
    finally:
        # an interrupted run may have unannounced writes
        generation.advance(tenant, revoking=True)
        connection.close()
        store.cluster.close()
    if as_json:
        print_json(report.as_dict())
    else:
        print_report(report, console)
    return not report.failed


def print_report(report: IngestReport, console: Console) -> None:
    """Print the summary for people."""
    for problem in report.failed[:_MOST_FAILURES]:
        where, detail = escape(printable(problem.place)), escape(printable(problem.detail))
        console.print(f"[red]not ingested[/] {where}: {detail} [dim]({problem.reason})[/]")
    if len(report.failed) > _MOST_FAILURES:
        console.print(f"... and {len(report.failed) - _MOST_FAILURES} more; --json lists all")
    for place, warning in report.warnings[:_MOST_FAILURES]:
        console.print(f"[yellow]note[/] {escape(printable(place))}: {escape(printable(warning))}")
    if report.sync_skipped:
        console.print(f"[yellow]nothing was removed[/]: {escape(report.sync_skipped)}")
    counts = f"{report.new} new, {report.changed} changed, {report.unchanged} unchanged, {report.deleted} removed"
    speed = f", {report.passages_per_second:.0f} passages/s, bound by {report.bound}" if report.bound else ""
    if report.languages:
        console.print("passages by language: " + ", ".join(f"{code} {n}" for code, n in report.languages.most_common()))
    console.print(f"{counts}, {len(report.failed)} failed; {report.passages} passages in {report.seconds:.1f} s{speed}")
