"""Candidates of a folder in BEIR's form, and the command that measures with them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from reranker import beir
from reranker.rankings import DataError
from reranker.train.export import export
from tests.train.conftest import read_json

pytestmark = pytest.mark.filterwarnings("ignore")


def write_set(folder: Path, queries: int = 24) -> None:
    folder.mkdir(parents=True)
    rows = [{"_id": f"d{n}", "title": f"word{n}", "text": f"about word{n} and word{(n + 1) % 60}"} for n in range(60)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [{"_id": f"q{n}", "text": f"word{n} word{(n + 1) % 60}"} for n in range(queries)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    lines = ["query-id\tcorpus-id\tscore", *(f"q{n}\td{n}\t1" for n in range(queries - 1))]
    (folder / "qrels.tsv").write_text("\n".join(lines) + "\n")


def test_bm25_finds_the_words(tmp_path: Path) -> None:
    write_set(tmp_path / "set")
    rankings, qrels = beir.load(tmp_path / "set", depth=5)
    assert len(rankings) == 23, "a query that nobody judged is left out"
    assert rankings[3].candidates[0].id == "d3"
    assert {item.id for item in rankings[3].candidates} == {"d2", "d3", "d4"}, "what shares no word is no candidate"
    assert qrels["q3"] == {"d3": 1}


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    write_set(tmp_path / "set")
    (tmp_path / "set" / "qrels.tsv").unlink()
    with pytest.raises(DataError, match=r"none of qrels/test\.tsv, qrels\.tsv"):
        beir.load(tmp_path / "set", depth=5)


def test_evaluate_writes_what_it_fitted(classifier: Path, tmp_path: Path) -> None:
    write_set(tmp_path / "set")
    export(classifier, tmp_path / "model", max_tokens=32)
    before = read_json(tmp_path / "model" / "reranker.json")
    command = [sys.executable, "-m", "reranker.cli", "evaluate", str(tmp_path / "model"), str(tmp_path / "set")]
    told = subprocess.run([*command, "--threads", "1"], capture_output=True, text=True, check=True, timeout=120)
    assert "not written" in told.stdout
    assert read_json(tmp_path / "model" / "reranker.json") == before
    done = subprocess.run(
        [*command, "--threads", "1", "--write", "--json"], capture_output=True, text=True, check=True, timeout=120
    )
    found = json.loads(done.stdout)
    written = read_json(tmp_path / "model" / "reranker.json")
    assert written["weight"] == found["fitted"]["weight"]
    assert written["calibration"]["method"] == "platt"
    assert len(written["bound"]["fused"]) == len(written["bound"]["p"])
