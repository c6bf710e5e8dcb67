"""`braid distil` before it works the cluster."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path

import pytest
from rich.console import Console

from app.commands.distil import run
from app.config import load_settings
from app.errors import ConfigurationError, InvalidInput
from app.evaluation.training_candidates import MineOptions, read_queries


def test_queries_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "queries.txt"
    path.write_text("what is it\n\n  where  \nwhat is it\n")
    assert sorted(read_queries(path).values()) == ["what is it", "where"]


@pytest.mark.parametrize("name", ["q.jsonl", "q.jsonl.gz"])
def test_queries_as_json_lines(tmp_path: Path, name: str) -> None:
    rows = [{"_id": "7", "text": "what is it"}, {"query": "where"}, {"text": " "}]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    found = read_queries(tmp_path / name)
    assert found["7"] == "what is it"
    assert sorted(found.values()) == ["what is it", "where"]


@pytest.mark.parametrize("name", ["q.jsonl", "q.txt"])
def test_a_file_without_a_query(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("\n")
    with pytest.raises(InvalidInput, match="it contains no query"):
        read_queries(tmp_path / name)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        read_queries(tmp_path / "q.txt")


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")
def test_without_torch_it_ends_before_the_cluster_is_asked(tmp_path: Path) -> None:
    settings = load_settings(opensearch_url="http://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="make train"):
        run(settings, MineOptions(tmp_path / "out"), {}, console=Console(quiet=True))
    assert not (tmp_path / "out").exists()
