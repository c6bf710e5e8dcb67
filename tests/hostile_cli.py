"""`braid` with parsers that do what their files say (`tests.unit.ingest.formats.hostile`), all else real."""

from __future__ import annotations

from functools import partial

import app.ingest.run
import app.serving.ingest_process
from app.cli import main
from app.ingest.formats import ParserPool
from tests.unit.ingest.formats.hostile import misbehave

if __name__ == "__main__":
    app.ingest.run.ParserPool = partial(ParserPool, parse=misbehave)  # type: ignore[misc, assignment]
    app.serving.ingest_process.WORKER = "tests.hostile_worker"
    main()
