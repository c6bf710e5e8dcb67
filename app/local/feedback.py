"""`braid feedback`: what the query log holds, as a judged set, as figures; and what is too old, removed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from app.config import Settings
from app.feedback import judgements
from app.feedback.judgements import Unit
from app.local.output import print_json
from app.store import query_log
from app.store.client import Cluster, connect


def export(
    settings: Settings,
    folder: Path,
    *,
    since: datetime | None,
    min_votes: int,
    unit: Unit,
    as_json: bool,
    console: Console,
) -> int:
    """`braid feedback export`; the exit code.

    Raises:
        NotFound, InvalidInput, StoreError: as `judgements.export`.
    """
    with _cluster(settings) as cluster:
        report = judgements.export(cluster, settings.tenant, folder, since=_utc(since), min_votes=min_votes, unit=unit)
    if as_json:
        print_json(report.as_dict())
        return 0
    console.print(
        f"{report.queries} queries, {report.judgements} judgements ({report.relevant} relevant), {report.pairs} pairs "
        f"from {report.feedback} feedback items: {folder}",
        markup=False,
    )
    for reason, count in sorted(report.dropped.items()):
        console.print(f"not used: {count} x {reason}", style="yellow", markup=False)
    if report.queries_without_text:
        console.print(
            f"{report.queries_without_text} queries were logged without their text (BRAID_QUERY_LOG=hashed)",
            style="yellow",
            markup=False,
        )
    if not report.relevant:
        console.print("nothing was judged relevant yet: there is nothing to measure by", style="yellow", markup=False)
    return 0


def stats(settings: Settings, *, since: datetime | None, as_json: bool, console: Console) -> int:
    """`braid feedback stats`; the exit code. Raises StoreError."""
    with _cluster(settings) as cluster:
        query_log.refresh(cluster)
        found = query_log.statistics(cluster, settings.tenant, _utc(since))
    share = found.relevant / found.feedback if found.feedback else None
    if as_json:
        print_json({**asdict(found), "relevant_share": share})
        return 0
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
    console.print(table, soft_wrap=False)
    return 0


def purge(settings: Settings, *, dry_run: bool, as_json: bool, console: Console) -> int:
    """`braid feedback purge`; the exit code. Raises StoreError."""
    with _cluster(settings) as cluster:
        names = query_log.expired(cluster, settings.query_log_days, datetime.now(UTC).date())
        if not dry_run:
            for name in names:
                query_log.remove(cluster, name)
    if as_json:
        print_json({"removed": [] if dry_run else names, "expired": names})
        return 0
    for name in names:
        console.print(f"{'would remove' if dry_run else 'removed'} {name}", markup=False)
    if not names:
        console.print(f"no month of the query log is older than {settings.query_log_days} days", markup=False)
    return 0


@contextmanager
def _cluster(settings: Settings) -> Iterator[Cluster]:
    cluster = connect(settings)
    try:
        yield cluster
    finally:
        cluster.close()


def _utc(when: datetime | None) -> datetime | None:
    return when.replace(tzinfo=UTC) if when is not None and when.tzinfo is None else when
