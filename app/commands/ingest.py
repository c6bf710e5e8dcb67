"""`braid ingest`: ingest files and folders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from app.commands.options import restriction_options, restrictions, settings_here
from app.ingest.run import IngestOptions
from app.serving.ingest_paths import ingest_and_report
from app.terminal import ERR


@click.command("ingest")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--tag", "tags", multiple=True, help="Topic tag for every document; may be given again.")
@click.option("--source", help="Source id (default: the folder's name).")
@click.option(
    "--acl", multiple=True, help="Readers of the documents (default: unchanged, new ones public); may be given again."
)
@restriction_options
@click.option("--whole", is_flag=True, help="Rows of JSON Lines are passages: do not chunk them.")
@click.option("--sync", is_flag=True, help="Remove documents of the source that are no longer in PATHS.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    paths: tuple[Path, ...],
    tags: tuple[str, ...],
    source: str | None,
    acl: tuple[str, ...],
    whole: bool,
    sync: bool,
    as_json: bool,
    **lists: Any,
) -> None:
    """Read files and folders into the store. Unchanged documents are skipped; exit code 1 if any file failed."""
    options = IngestOptions(tags, source, acl or None, restrictions(lists), whole=whole, sync=sync)
    ok = ingest_and_report(settings_here(), paths, options, as_json=as_json, console=ERR)
    sys.exit(0 if ok else 1)
