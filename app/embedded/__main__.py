"""``python -m app.embedded``: a node and a Valkey in the foreground, for working on Braid itself.

Prints one JSON line when both are up, which names the file with the password of both; SIGTERM or Ctrl-C stops them and
removes the data unless --data named its folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

import click

from app.addresses import masked
from app.config import load_settings
from app.embedded.files import make_folder
from app.embedded.guard import USER
from app.embedded.node import start_cluster
from app.embedded.secret import FILE_NAME, own_secret
from app.embedded.valkey import start_valkey
from app.errors import BraidError


@click.command()
@click.option("--nodes", default=1, show_default=True, help="How many OpenSearch nodes.")
@click.option("--heap-mb", type=int, help="Java heap of each node.")
@click.option("--data", type=click.Path(path_type=Path), help="Keep the data here; else it goes with the process.")
def main(nodes: int, heap_mb: int | None, data: Path | None) -> None:
    """Run a local OpenSearch and a local Valkey until SIGTERM or Ctrl-C."""
    signal.signal(signal.SIGTERM, _leave)
    with contextlib.ExitStack() as stack:
        folder = data or _temporary(stack)
        settings = load_settings()
        try:
            secret = own_secret(make_folder(folder))
            cluster = stack.enter_context(
                start_cluster(
                    settings,
                    data_dir=folder / "opensearch",
                    nodes=nodes,
                    heap_mb=heap_mb,
                    secret=secret,
                    on_progress=_tell,
                )
            )
            valkey = stack.enter_context(start_valkey(settings, data_dir=folder / "valkey", secret=secret))
            line = {"opensearch_url": cluster.url, "redis_url": masked(valkey.url), "pid": os.getpid()}
            print(json.dumps(line | {"opensearch_user": USER, "secret_file": str(folder / FILE_NAME)}), flush=True)
            while True:
                time.sleep(1)
                cluster.check_alive()
                valkey.check_alive()
        except BraidError as error:
            raise click.ClickException(error.detail) from error
        except KeyboardInterrupt:
            _tell("stopping")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _leave(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _temporary(stack: contextlib.ExitStack) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="braid-"))
    folder.chmod(0o755)  # the node's account must get through
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


if __name__ == "__main__":
    main()
