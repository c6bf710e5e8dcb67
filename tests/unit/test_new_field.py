"""A new field that can be filtered by is a line of `Passage` and its mapping: everything else follows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINE = '    author: Annotated[str, Stored("keyword", "Author", filter="any of", returned=True, writable=True)] = ""\n'
BEFORE = "    content_hash: Annotated["
MAPPED = '"language": {'


def test_a_line_and_a_mapping_are_a_new_field(tmp_path: Path) -> None:
    for name in ("app", "reranker", "mappings", "pipelines"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    put_in_front(tmp_path / "app" / "passage.py", BEFORE, LINE)
    mapping = tmp_path / "mappings" / "component_templates" / "braid-fields.json"
    put_in_front(mapping, MAPPED, '"author": {"type": "keyword"}, ')
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BRAID_")}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("new_field_checks.py"))],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def put_in_front(file: Path, place: str, text: str) -> None:
    found = file.read_text()
    assert found.count(place) == 1
    file.write_text(found.replace(place, text + place))
