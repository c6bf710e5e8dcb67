"""`braid up`: run everything on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import click

from app.config import load_settings
from app.config.section import OpenSearchRelease
from app.dev.up import UpOptions, run
from app.ingest.run import IngestOptions
from app.terminal import ERR


@click.command("up")
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the service; 0 picks a free one. Default 8080.")
@click.option("--data", "data_dir", type=click.Path(file_okay=False, path_type=Path), help="Folder for data.")
@click.option("--nodes", type=click.IntRange(1, 5), default=1, show_default=True, help="OpenSearch nodes.")
@click.option(
    "--opensearch",
    type=click.Choice(get_args(OpenSearchRelease)),
    help="Release of OpenSearch; a data folder can be upgraded, never taken back. Default: the data folder's.",
)
@click.option("--llm", metavar="URL|local|none", help="An OpenAI-compatible endpoint, or a small local model.")
@click.option("--tag", "tags", multiple=True, help="Topic tag for everything ingested from PATHS.")
@click.option("--source", help="Source id of PATHS (default: the folder's name).")
@click.option("--whole", is_flag=True, help="Rows of JSON Lines are passages: do not chunk them.")
@click.option("--sync", is_flag=True, help="Remove documents of the source that are no longer in PATHS.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON when ready.")
def command(
    paths: tuple[Path, ...],
    port: int | None,
    data_dir: Path | None,
    nodes: int,
    opensearch: str | None,
    llm: str | None,
    tags: tuple[str, ...],
    source: str | None,
    whole: bool,
    sync: bool,
    as_json: bool,
) -> None:
    """Run everything here: OpenSearch, a Redis protocol server, the service; ingest PATHS."""
    llm_url = llm if llm and llm not in {"local", "none"} else None
    settings = load_settings(
        port=port, data_dir=data_dir and data_dir.resolve(), llm_url=llm_url, opensearch_version=opensearch
    )
    if llm == "none":
        settings = settings.with_values(llm_url=None)
    ingest_options = IngestOptions(tags=tags, source_id=source, whole=whole, sync=sync)
    sys.exit(run(settings, UpOptions(paths, ingest_options, nodes, llm == "local", as_json), console=ERR))
