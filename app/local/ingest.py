"""`braid ingest`, also inside `braid up`: opens the parts, runs, prints the report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import orjson
from rich.console import Console

from app.cache.generation import IndexGeneration
from app.config import Settings
from app.ingest.progress import RichProgress
from app.ingest.run import IngestOptions, IngestReport, ingest_paths
from app.local.assets import open_store


def ingest_and_report(
    settings: Settings,
    paths: Sequence[Path],
    *,
    tags: Sequence[str],
    source: str | None,
    acl: Sequence[str],
    whole: bool,
    sync: bool,
    as_json: bool,
    console: Console,
) -> bool:
    """Ingest `paths`; True when every file went in."""
    store = open_store(settings, ensure=True)
    options = IngestOptions(tags=tuple(tags), source=source, acl=tuple(acl) or ("public",), whole=whole, sync=sync)
    generation = IndexGeneration(settings)
    with RichProgress(console) as progress:
        report = ingest_paths(
            paths,
            settings=settings,
            cluster=store.cluster,
            encoder=store.encoder,
            options=options,
            progress=progress,
        )
    if report.new or report.changed or report.deleted:
        generation.advance(settings.tenant)
    if as_json:
        sys.stdout.write(orjson.dumps(asdict(report)).decode() + "\n")
    else:
        print_report(report, console)
    return not report.failed


def print_report(report: IngestReport, console: Console) -> None:
    """The summary for people."""
