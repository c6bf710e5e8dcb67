"""A process that keeps a parser pool busy until it is killed: ``python -m tests.unit.ingest.formats.keeper FOLDER``."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path

from app.config import load_settings
from app.ingest.formats import ParserPool
from tests.unit.ingest.formats.hostile import HANGS, misbehave


def keep(pool: ParserPool, folder: Path, act: str) -> None:
    """Have the pool parse, for ever, a file that has no name on disk."""
    with tempfile.TemporaryFile(dir=folder) as content:
        content.write(act.encode())
        pool.parse(Path("upload.txt"), content)


def main(folder: Path) -> None:
    pool = ParserPool(load_settings().ingest, len(HANGS) + 1, parse=misbehave)
    for act in HANGS:
        # the threads end with the process only; one that starts a process and ends must not take it along
        threading.Thread(target=keep, args=(pool, folder, act), daemon=True).start()
    while len(pool.processes()) < len(HANGS):
        time.sleep(0.05)
    good = folder.parent / "good.txt"
    for _ in range(2):
        thread = threading.Thread(target=pool.parse, args=(good,))
        thread.start()
        thread.join()
        print(*sorted(pool.processes()), flush=True)
        time.sleep(1)
    time.sleep(3600)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
