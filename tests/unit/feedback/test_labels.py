"""Whose feedback is taken, and for what."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pydantic import ValidationError

from app.api.schemas import FeedbackRequest
from app.errors import FeatureDisabled, InvalidInput, NotFound
from app.feedback import labels as module
from app.feedback.ids import new_query_id
from app.feedback.labels import LabelStore, feedback_id_of
from app.feedback.log import QueryLog
from app.store.client import Cluster, StoreRequestError
from app.store.filters import Scope
from app.store.query_log import Entry
from tests.unit.feedback.canned import SCOPE, entry, settings

ANN = Scope("default", frozenset({"user:ann"}))


class Documents(Cluster):
    """Keeps documents by path."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.looked = 0

    def add(self, one: Entry) -> None:
        self.kept[f"/braid-queries-{one.made_at:%Y.%m}/_doc/{one.id}"] = one.source

    def request(self, method: str, path: str, *, body: Any = None, **_: Any) -> Any:
        if method == "PUT":
            self.kept[path] = body
            return {"result": "created"}
        assert method == "GET"
        self.looked += 1
        if path not in self.kept:
            raise StoreRequestError("not there", status_code=404, error_type="unknown")
        return {"_source": self.kept[path]}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)


def store(cluster: Cluster, mode: str = "full") -> LabelStore:
    return LabelStore(settings(mode).query_log, cluster, QueryLog(settings(mode).query_log, cluster))


def test_feedback_names_the_result_and_a_changed_mind_takes_its_place() -> None:
    cluster, query = Documents(), entry()
    cluster.add(query)
    labels = store(cluster)
    first = labels.give(SCOPE, query_id=query.id, result_id="p2", label="relevant", comment="just so")
    path = f"/braid-queries-{query.made_at:%Y.%m}/_doc/{first.feedback_id}"
    kept = cluster.kept[path]
    assert kept.pop("timestamp")
    assert kept == {
        "kind": "feedback",
        "query_id": query.id,
        "tenant": "default",
        "query_hash": query.source["query_hash"],
        "result_id": "p2",
        "document_id": "d",
        "rank": 2,
        "label": "relevant",
        "comment": "just so",
    }
    again = labels.give(SCOPE, query_id=query.id, result_id="p2", label="irrelevant")
    assert again.feedback_id == first.feedback_id
    assert (cluster.kept[path]["label"], "comment" in cluster.kept[path]) == ("irrelevant", False)
    whole = labels.give(SCOPE, query_id=query.id, result_id=None, label="relevant")
    assert whole.feedback_id != first.feedback_id
    assert len(cluster.kept) == 3


def test_hashed_drops_the_comment_and_says_so() -> None:
    cluster, query = Documents(), entry("hashed")
    cluster.add(query)
    given = store(cluster, "hashed").give(
        SCOPE, query_id=query.id, result_id="p1", label="relevant", comment="a secret"
    )
    assert "not kept" in given.warnings[0]
    assert "a secret" not in str(cluster.kept)
    silent = store(cluster, "hashed").give(SCOPE, query_id=query.id, result_id="p1", label="relevant", comment=" ")
    assert silent.warnings == ()


def test_a_query_of_somebody_else_and_one_that_is_not_there_are_the_same() -> None:
    cluster, query = Documents(), entry(scope=ANN)
    cluster.add(query)
    unknown = new_query_id()
    said, took = set(), []
    for scope, query_id in [
        (SCOPE, query.id),
        (Scope("default", frozenset()), query.id),
        (Scope("default", frozenset({"user:bob"})), query.id),
        (Scope("other", ANN.principals), query.id),
        (ANN, unknown),
    ]:
        started = time.monotonic()
        with pytest.raises(NotFound) as caught:
            store(cluster).give(scope, query_id=query_id, result_id="p1", label="relevant")
        took.append(time.monotonic() - started)
        said.add(caught.value.detail.replace(query_id, "ID"))
    assert len(said) == 1
    assert "90 days" in said.pop()
    assert min(took) >= module.PATIENCE_S, "the time tells them apart"
    assert store(cluster).give(ANN, query_id=query.id, result_id="p1", label="relevant")


def test_an_old_id_is_not_waited_for() -> None:
    for query_id in ("019abcde12347abc8123456789abcdef", "0" * 32):
        documents = Documents()
        with pytest.raises(NotFound):
            store(documents).give(SCOPE, query_id=query_id, result_id=None, label="relevant")
        assert documents.looked <= 1


def test_feedback_is_no_query() -> None:
    cluster, query = Documents(), entry()
    cluster.add(Entry(query.id, query.made_at, {**query.source, "kind": "feedback"}))
    with pytest.raises(NotFound):
        store(cluster).give(SCOPE, query_id=query.id, result_id=None, label="relevant")


def test_a_foreign_result_is_named() -> None:
    cluster, query = Documents(), entry()
    cluster.add(query)
    with pytest.raises(InvalidInput, match="'p3'") as caught:
        store(cluster).give(SCOPE, query_id=query.id, result_id="p3", label="relevant")
    assert caught.value.problems[0].loc == ("body", "result_id")


def test_without_a_log_there_is_no_feedback() -> None:
    with pytest.raises(FeatureDisabled, match="BRAID_QUERY_LOG=off"):
        store(Documents(), "off").give(SCOPE, query_id=new_query_id(), result_id=None, label="relevant")


def test_the_id_tells_callers_and_results_apart() -> None:
    query_id = new_query_id()
    found = {
        feedback_id_of(scope, query_id, result)
        for scope in (SCOPE, ANN, Scope("other"), Scope("default", frozenset({"user:ann", "group:a"})))
        for result in (None, "None", "p1")
    }
    assert len(found) == 12


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ({"query_id": "0" * 31}, "query_id"),
        ({"query_id": "0" * 33}, "query_id"),
        ({"query_id": "G" * 32}, "query_id"),
        ({"query_id": "0" * 32 + "\n"}, "query_id"),
        ({"query_id": 1}, "query_id"),
        ({"label": "good"}, "label"),
        ({"label": None}, "label"),
        ({"result_id": ""}, "result_id"),
        ({"result_id": 3}, "result_id"),
        ({"comment": "x" * 2001}, "comment"),
        ({"coment": "x"}, "coment"),
    ],
)
def test_a_wrong_body_is_refused_with_its_place(more: dict[str, Any], place: str) -> None:
    body = {"query_id": "0" * 32, "label": "relevant"}
    assert FeedbackRequest.model_validate(body).result_id is None
    with pytest.raises(ValidationError) as caught:
        FeedbackRequest.model_validate({**body, **more})
    assert caught.value.errors()[0]["loc"][0] == place
