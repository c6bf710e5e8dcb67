"""`braid feedback`: export the query log as a judged set, show statistics, remove old entries."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import click
from rich.table import Table

from app.commands.options import settings_here
from app.feedback import judged_set
from app.store import query_log
from app.store.client import connect
from app.terminal import OUT, print_json, print_table

_since_option = click.option(
    "--since", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="Only from this day (or time, UTC) on."
)


@click.group("feedback")
def command() -> None:
    """The query log: export judgements, show statistics, remove old entries."""


@command.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@_since_option
@click.option("--min-votes", type=click.IntRange(1), default=1, show_default=True, help="Of a judgement.")
@click.option("--unit", type=click.Choice(["document", "passage"]), default="document", show_default=True)
@click.option("--json", "as_json", is_flag=True)
def export(
    folder: Path, since: datetime | None, min_votes: int, unit: Literal["document", "passage"], as_json: bool
) -> None:
    """Write a judged set in BEIR's form (queries.jsonl, qrels.tsv), pairs.jsonl and meta.json into FOLDER."""
    settings = settings_here()
    with closing(connect(settings.opensearch)) as cluster:
        report = judged_set.export(
            cluster, settings.access.tenant, folder, since=_utc(since), min_votes=min_votes, unit=unit
        )
    if as_json:
        print_json(report.as_dict())
        return
    OUT.print(
        f"{report.queries} queries, {report.judgements} judgements ({report.relevant} relevant), {report.pairs} pairs "
        f"from {report.feedback} feedback items: {folder}",
        markup=False,
    )
    notes = [f"not used: {count} x {reason}" for reason, count in sorted(report.dropped.items())]
    if report.queries_without_text:
        notes.append(f"{report.queries_without_text} queries were logged without their text (BRAID_QUERY_LOG=hashed)")
    if not report.relevant:
        notes.append("nothing was judged relevant yet: the set can't be used for measuring")
    for note in notes:
        OUT.print(note, style="yellow", markup=False)


@command.command("stats")
@_since_option
@click.option("--json", "as_json", is_flag=True)
def stats(since: datetime | None, as_json: bool) -> None:
    """Show statistics: queries, feedback, latency."""
    settings = settings_here()
    with closing(connect(settings.opensearch)) as cluster:
        query_log.refresh(cluster)
        found = query_log.statistics(cluster, settings.access.tenant, _utc(since))
    share = found.relevant / found.feedback if found.feedback else None
    if as_json:
        print_json({**asdict(found), "relevant_share": share})
        return
    table = Table("what", "figure")
    table.add_row("queries", str(found.queries))
    table.add_row("without results", str(found.without_results))
    table.add_row("with a stage degraded", str(found.degraded))
    table.add_row("answers that abstained", str(found.abstained))
    table.add_row("feedback", f"{found.feedback} ({found.of_results} of single results)")
    table.add_row("share relevant", "-" if share is None else f"{share:.1%}")
    for route in found.latency:
        figures = ", ".join(
            f"{name} {value:.0f} ms"
            for name, value in (("p50", route.p50_ms), ("p95", route.p95_ms))
            if value is not None
        )
        table.add_row(f"{route.route} ({route.queries})", figures)
    print_table(OUT, table)


@command.command("purge")
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
@click.option("--json", "as_json", is_flag=True)
def purge(dry_run: bool, as_json: bool) -> None:
    """Remove the months of the log that are entirely older than BRAID_QUERY_LOG_DAYS, for all tenants."""
    settings = settings_here()
    with closing(connect(settings.opensearch)) as cluster:
        names = query_log.expired(cluster, settings.query_log.days, datetime.now(UTC).date())
        if not dry_run:
            for name in names:
                query_log.remove(cluster, name)
    if as_json:
        print_json({"removed": [] if dry_run else names, "expired": names})
        return
    for name in names:
        OUT.print(f"{'would remove' if dry_run else 'removed'} {name}", markup=False)
    if not names:
        OUT.print(f"no month of the query log is older than {settings.query_log.days} days", markup=False)


def _utc(when: datetime | None) -> datetime | None:
    return when.replace(tzinfo=UTC) if when is not None and when.tzinfo is None else when
