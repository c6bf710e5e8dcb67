"""`braid` with parsers that do what their files say (`tests.unit.ingest.parse.hostile`), everything else being real."""

from __future__ import annotations

from functools import partial

import app.api.services
import app.ingest.run
from app.cli import main
from app.ingest.parse import ParserPool
from tests.unit.ingest.parse.hostile import misbehave

if __name__ == "__main__":
    hostile = partial(ParserPool, parse=misbehave)
    app.ingest.run.ParserPool = hostile  # type: ignore[misc, assignment]
    app.api.services.ParserPool = hostile  # type: ignore[misc, assignment]
    main()
