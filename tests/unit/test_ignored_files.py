"""What holds secrets gets neither into the repository nor into a layer of an image."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", [".gitignore", ".dockerignore"])
def test_passwords_and_data_are_ignored(name: str) -> None:
    lines = {line.strip("/").removeprefix("**/") for line in (ROOT / name).read_text().splitlines()}
    assert {".env", "data"} <= lines
