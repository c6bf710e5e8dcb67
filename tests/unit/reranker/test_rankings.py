"""Candidates and judgements as files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from reranker.rankings import (
    Candidate,
    DataError,
    Ranking,
    add_labels,
    qrels_of,
    read_qrels,
    read_rankings,
    write_rankings,
)

RANKINGS = [
    Ranking("1", "what is it", (Candidate("a", "It is ä thing.", 0.75, 1.0), Candidate("b", "No.", 0.5))),
    Ranking("2", "and that", (Candidate("c", "line\nbreak", 1.0, 0.0),)),
]


@pytest.mark.parametrize("name", ["candidates.jsonl", "candidates.jsonl.gz"])
def test_there_and_back(tmp_path: Path, name: str) -> None:
    assert write_rankings(tmp_path / "new" / name, RANKINGS) == 2
    assert read_rankings(tmp_path / "new" / name) == RANKINGS
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_a_compressed_file_is_compressed(tmp_path: Path) -> None:
    write_rankings(tmp_path / "c.jsonl.gz", RANKINGS)
    assert gzip.decompress((tmp_path / "c.jsonl.gz").read_bytes()).count(b"\n") == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "line 1: it is not JSON"),
        ("[]", r"line 1: .*Expected: \{\"query_id\""),
        ('{"query_id": 1, "query": "x", "candidates": [{"id": 1}]}', "line 1: KeyError"),
        ('{"query_id": 1, "query": null, "candidates": []}', "NoneType where text is expected"),
        ('{"query_id": 1, "query": "x", "candidates": [{"id": 1, "text": "t", "score": "high"}]}', "could not convert"),
        ("", "no query has candidates"),
        ('{"query_id": 1, "query": "x", "candidates": []}', "no query has candidates"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=expected):
        read_rankings(path)


def test_the_same_query_twice(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    write_rankings(path, [RANKINGS[0], RANKINGS[0]])
    with pytest.raises(DataError, match=r"line 2: the query id '1' occurs twice"):
        read_rankings(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_rankings(tmp_path / "nothing.jsonl")


def test_judgements_of_both_forms(tmp_path: Path) -> None:
    path = tmp_path / "qrels.tsv"
    path.write_text("query-id\tcorpus-id\tscore\n1\ta b\t2\n1\tb\t0\n")
    assert read_qrels(path) == {"1": {"a b": 2, "b": 0}}
    path.write_text("1 0 a 1\n2 0 c 3\n")
    assert read_qrels(path) == {"1": {"a": 1}, "2": {"c": 3}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1\ta\t1\n1\tb\thigh\n", "line 2: .*is not a judgement"),
        ("a header\n", "it contains no judgement"),
        ("", "no judgement"),
    ],
)
def test_judgements_that_are_none(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "qrels.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=expected):
        read_qrels(path)


def test_labels_come_from_judgements_and_go_into_them() -> None:
    assert qrels_of(RANKINGS) == {"1": {"a": 1}, "2": {"c": 0}}
    labelled = add_labels(RANKINGS, {"1": {"b": 2}})
    assert [item.label for item in labelled[0].candidates] == [1.0, 2.0]
    assert labelled[1] == RANKINGS[1]
