"""`braid serve`: run the service against a cluster elsewhere."""

from __future__ import annotations

import os

import click

from app.commands.options import settings_here
from app.server import serve as run


@click.command("serve")
@click.option("--host", help="Address to listen on; other than loopback needs keys or tokens (docs/access.md).")
@click.option("--port", type=click.IntRange(1, 65535))
@click.option("--workers", type=click.IntRange(1, 64), help="Number of processes; each loads the embedding model.")
def command(host: str | None, port: int | None, workers: int | None) -> None:
    """Serve HTTP against the cluster of BRAID_OPENSEARCH_URL."""
    for name, value in (("BRAID_HOST", host), ("BRAID_PORT", port), ("BRAID_WORKERS", workers)):
        if value is not None:
            os.environ[name] = str(value)
    run(settings_here())
