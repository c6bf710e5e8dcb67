"""The committed description is the one that is served. To write it anew: ``python -m tests.unit.api.test_openapi``."""

from __future__ import annotations

from pathlib import Path

import orjson

from app.api.factory import ENDPOINTS
from app.api.openapi import document

COMMITTED = Path(__file__).resolve().parents[3] / "docs" / "openapi.json"


def test_the_committed_description_is_current() -> None:
    assert orjson.loads(COMMITTED.read_bytes()) == orjson.loads(orjson.dumps(document(ENDPOINTS)))


if __name__ == "__main__":
    COMMITTED.write_bytes(orjson.dumps(document(ENDPOINTS), option=orjson.OPT_INDENT_2) + b"\n")
