"""Fields of foreign mappings, files of queries, and what a reader refuses to send."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.config.retrieval import OpenSearchSettings
from app.errors import DeadlineExceeded, InvalidInput
from app.inspection.checks.judged import best_weight
from app.inspection.checks.memory import graph_bytes
from app.inspection.checks.pipelines import judge_pipeline
from app.inspection.fields import VectorField, find_text, find_vector, values_at
from app.inspection.findings import Severity
from app.inspection.queries import read_query_set
from app.inspection.reader import Reader, TimeBudget, quoted

TEXT, VECTOR = {"type": "text"}, {"type": "knn_vector", "dimension": 3}


def reader(budget_ms: int = 1000) -> Reader:
    return Reader(OpenSearchSettings(url="http://127.0.0.1:1"), TimeBudget.after(budget_ms))


def mapping(**properties: Any) -> dict[str, dict[str, Any]]:
    return {"an-index": {"properties": properties}}


def test_the_only_fields_are_found_wherever_they_are() -> None:
    deep = mapping(
        doc={"properties": {"body": {**TEXT, "fields": {"raw": TEXT}}, "vec": VECTOR}}, tag={"type": "keyword"}
    )
    text, vector = find_text(deep, None), find_vector(deep, None, reader())
    assert text is not None
    assert (text.name, text.sources) == ("doc.body", ("doc.body",))
    assert vector is not None
    assert (vector.name, vector.dimension, vector.space_type) == ("doc.vec", 3, "l2")


def test_a_field_that_others_are_copied_into_is_the_one() -> None:
    found = find_text(mapping(title={**TEXT, "copy_to": "all"}, text={**TEXT, "copy_to": ["all"]}, all=TEXT), None)
    assert found is not None
    assert (found.name, found.sources) == ("all", ("title", "text"))


def test_several_fields_are_listed() -> None:
    several = mapping(title=TEXT, body=TEXT, hidden={**TEXT, "index": False}, a=VECTOR, b=VECTOR)
    with pytest.raises(InvalidInput, match=r"has 2 text fields, choose one with --text: title, body$"):
        find_text(several, None)
    with pytest.raises(InvalidInput, match=r"has 2 knn_vector fields, choose one with --vector: a, b$"):
        find_vector(several, None, reader())
    with pytest.raises(InvalidInput, match="--text 'a' is not an indexed text field of the index; it has: title, body"):
        find_text(several, "a")
    chosen = find_text(several, "body")
    assert chosen is not None
    assert chosen.name == "body"
    assert find_text(mapping(tag={"type": "keyword"}), None) is None
    assert find_vector(mapping(parts={"type": "nested", "properties": {"v": VECTOR}}), None, reader()) is None


@pytest.mark.parametrize("engine", ["faiss", "lucene"])
def test_a_method_is_read(engine: str) -> None:
    method = {
        "name": "hnsw", "engine": engine, "space_type": "innerproduct",
        "parameters": {"m": 8, "encoder": {"name": "sq", "parameters": {"type": "fp16"}}},
    }  # fmt: skip
    found = find_vector(mapping(v={**VECTOR, "method": method}), None, reader())
    assert found == VectorField("v", 3, "innerproduct", engine, "hnsw", encoder="sq fp16", m=8)
    assert graph_bytes(found, 1000) == pytest.approx(1.1 * (2 * 3 + 8 * 8) * 1000)


def test_values_at_a_path() -> None:
    assert values_at({"a": {"b": [{"c": 1}, {"c": 2}]}}, "a.b.c") == [1, 2]
    assert values_at({"a.b": "dotted"}, "a.b") == ["dotted"]
    assert values_at({"v": [0.5, 1.0]}, "v") == [[0.5, 1.0]]
    assert values_at({"a": None}, "a.b") == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/x"),
        ("DELETE", "/x"),
        ("POST", "/x/_doc"),
        ("POST", "/x/_delete_by_query"),
        ("POST", "/_search/scroll"),
    ],
)
def test_a_reader_sends_nothing_that_could_write(method: str, path: str) -> None:
    with pytest.raises(ValueError, match="only reads"):
        reader().request(method, path)


def test_a_spent_budget_says_so() -> None:
    with pytest.raises(DeadlineExceeded, match="earlier checks spent the budget of 0 s: pass a larger --budget"):
        reader(0).get("/")


@pytest.mark.parametrize("name", ["", " ", "_all", "-x", ".", ".."])
def test_names_that_are_no_index(name: str) -> None:
    with pytest.raises(InvalidInput, match="is not the name of an index"):
        quoted(name)


def test_a_name_can_not_leave_its_path() -> None:
    assert quoted("a/../_cluster?x#y") == "a%2F..%2F_cluster%3Fx%23y"
    assert quoted("logs-*,b") == "logs-*,b"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"_id": "1"}\n', "queries.jsonl line 1: no text"),
        ('\n{"_id": 1, "text": \n', "queries.jsonl line 2: not JSON"),
        ('{"_id": "1", "text": "a", "vector": [1, "b"]}', "line 1: the vector is not a list of numbers"),
        ('{"_id": "0", "text": "b"}\n{"_id": "1", "text": "a", "vector": [1, 2]}', "line 2: the vector has 2 d"),
        ('{"_id": "1", "text": "a", "vector": [[1], [2]]}', "line 1: the vector is not a list of finite numbers"),
        ("", "queries.jsonl: it is empty"),
    ],
)  # fmt: skip
def test_a_file_of_queries_in_the_wrong_form(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_text(content)
    with pytest.raises(InvalidInput, match=said):
        read_query_set(path, None, 3)


def test_files_that_are_partly_usable(tmp_path: Path) -> None:
    queries, qrels = tmp_path / "queries.jsonl", tmp_path / "qrels.tsv"
    queries.write_text('{"_id": "1", "text": "a", "vector": [1, 2, 3]}\n{"_id": "2"}\n{"_id": "3", "text": "c"}\n')
    qrels.write_text("1\td1\t1\n3\td3\n")
    found = read_query_set(queries, qrels, 3)
    assert found.queries == {"1": "a", "3": "c"}
    assert found.vectors["1"].tolist() == [1, 2, 3]
    assert found.judged is not None
    assert found.judged.qrels == {"1": {"d1": 1}}
    told = " ".join(item.evidence for item in found.findings)
    assert "queries.jsonl line 2: no text" in told
    assert "qrels.tsv line 2: 2 columns" in told
    with pytest.raises(InvalidInput, match=r"missing\.tsv: there is no such file"):
        read_query_set(queries, tmp_path / "missing.tsv", 3)


def test_the_best_weight_is_certain_only_where_queries_agree() -> None:
    sure = [[float(weight == 3)] * 40 for weight in range(11)]
    assert best_weight(sure) == (0.3, 0.3, 0.3)
    torn = [[float(weight == (1 if query % 2 else 9)) for query in range(40)] for weight in range(11)]
    assert best_weight(torn)[1:] == (0.1, 0.9)


def test_a_search_pipeline_that_filters_around_the_query() -> None:
    """The embedded node lacks the module of this processor, so no live test can have it."""
    filtering: dict[str, Any] = {"request_processors": [{"filter_query": {"query": {"match_all": {}}}}]}
    fusing: dict[str, Any] = {"phase_results_processors": [{"normalization-processor": {}}]}
    assert [item.severity for item in judge_pipeline("p", fusing)] == [Severity.OK]
    (found,) = judge_pipeline("p", filtering | fusing)
    assert (found.severity, found.title) == (Severity.WARNING, "The search pipeline filters around the query")
    assert len(list(judge_pipeline("p", filtering))) == 2
