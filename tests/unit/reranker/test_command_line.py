"""`braid-reranker` where torch is not installed, and with files that can't be used."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT_TORCH = importlib.util.find_spec("torch") is None


def braid_reranker(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "reranker.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_help_names_all_commands() -> None:
    done = braid_reranker("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("export", "quantize", "distil", "evaluate"))


@pytest.mark.skipif(not WITHOUT_TORCH, reason="torch is installed")
def test_without_torch_it_says_how_to_get_it(tmp_path: Path) -> None:
    done = braid_reranker("export", str(tmp_path), str(tmp_path / "out"))
    assert done.returncode == 2
    assert "make train" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_set_that_is_not_there(tmp_path: Path) -> None:
    done = braid_reranker("evaluate", str(tmp_path), str(tmp_path / "nothing.jsonl"))
    assert done.returncode == 1
    assert "the file does not exist" in done.stderr


def test_candidates_that_nobody_judged(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"query_id": 1, "query": "x", "candidates": [{"id": "a", "text": "t"}]}))
    done = braid_reranker("evaluate", str(tmp_path), str(path))
    assert done.returncode == 1
    assert "pass judgements with --qrels" in done.stderr


def test_a_model_folder_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    candidates = [{"id": "a", "text": "t", "label": 1}]
    path.write_text(json.dumps({"query_id": 1, "query": "x", "candidates": candidates}))
    done = braid_reranker("evaluate", str(tmp_path / "model"), str(path))
    assert done.returncode == 2
    assert "there is no folder" in done.stderr
