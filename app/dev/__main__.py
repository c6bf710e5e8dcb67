"""``python -m app.dev``: a node and a Valkey in the foreground, for developing Braid.

Prints one JSON line when both are ready, which names the file with their password; SIGTERM or Ctrl-C stops them and
removes the data unless --data names its folder. With --env-file the addresses are written for tests (`make live`).
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
from typing import get_args

import click

from app.addresses import mask_passwords
from app.config import load_settings
from app.config.section import OpenSearchRelease
from app.dev.guard import USER
from app.dev.node import start_cluster
from app.dev.secret import FILE_NAME, own_secret
from app.dev.valkey import start_valkey
from app.errors import BraidError
from app.provision.folders import make_folder, write_new_file


@click.command()
@click.option("--nodes", default=1, show_default=True, help="Number of OpenSearch nodes.")
@click.option("--opensearch", type=click.Choice(get_args(OpenSearchRelease)), help="Release of OpenSearch.")
@click.option("--heap-mb", type=int, help="Java heap of each node.")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder to keep the data in; default: removed at the end."
)
@click.option("--env-file", type=click.Path(dir_okay=False, path_type=Path), help="Write BRAID_TEST_* settings here.")
def main(nodes: int, opensearch: str | None, heap_mb: int | None, data: Path | None, env_file: Path | None) -> None:
    """Run a local OpenSearch and a local Valkey until SIGTERM or Ctrl-C."""
    signal.signal(signal.SIGTERM, _raise_interrupt)
    with contextlib.ExitStack() as stack:
        folder = data or _temporary(stack)
        settings = load_settings(opensearch_version=opensearch)
        try:
            secret = own_secret(make_folder(folder))
            cluster = stack.enter_context(
                start_cluster(
                    settings.machine,
                    data_dir=folder / "opensearch",
                    nodes=nodes,
                    heap_mb=heap_mb,
                    secret=secret,
                    on_progress=_print_line,
                )
            )
            valkey = stack.enter_context(start_valkey(data_dir=folder / "valkey", secret=secret))
            line = {"opensearch_url": cluster.url, "redis_url": mask_passwords(valkey.url), "pid": os.getpid()}
            print(json.dumps(line | {"opensearch_user": USER, "secret_file": str(folder / FILE_NAME)}), flush=True)
            if env_file is not None:
                _write_env(stack, env_file, cluster.url.replace("://", f"://{USER}:{secret}@"), valkey.url)
            while True:
                time.sleep(1)
                cluster.check_alive()
                valkey.check_alive()
        except BraidError as error:
            raise click.ClickException(error.detail) from error
        except KeyboardInterrupt:
            _print_line("stopping")


def _print_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _raise_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _write_env(stack: contextlib.ExitStack, file: Path, opensearch_url: str, redis_url: str) -> None:
    """Write the addresses, which contain the password, as the variables that tests read; the file is removed at the
    end.
    """
    write_new_file(file, f"BRAID_TEST_OPENSEARCH_URL={opensearch_url}\nBRAID_TEST_REDIS_URL={redis_url}\n", mode=0o600)
    stack.callback(file.unlink, missing_ok=True)


def _temporary(stack: contextlib.ExitStack) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="braid-"))
    folder.chmod(0o755)  # the node's account must be able to enter
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


if __name__ == "__main__":
    main()
