"""The ingest process with parsers that do what their files say, everything else being real: see `hostile_cli`."""

from __future__ import annotations

import sys
from functools import partial

import app.serving.ingest_worker
from app.ingest.formats import ParserPool
from tests.unit.ingest.formats.hostile import misbehave

if __name__ == "__main__":
    app.serving.ingest_worker.ParserPool = partial(ParserPool, parse=misbehave)  # type: ignore[misc, assignment]
    app.serving.ingest_worker.main(int(sys.argv[1]))
