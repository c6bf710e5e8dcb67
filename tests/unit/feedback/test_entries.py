"""Ids that say their month, and what the log keeps of a query in each mode."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import load_settings
from app.errors import ConfigurationError
from app.feedback.entries import KEPT_RESULTS, normalised, principals, query_hash
from app.feedback.ids import made_at, new_query_id
from app.store.filters import Scope
from app.store.query_log import month_index
from tests.unit.feedback.canned import entry, hit, settings


def test_an_id_says_when_it_was_made_and_later_ones_sort_later() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=2)
    made = [new_query_id() for _ in range(1000)]
    assert len(set(made)) == 1000
    for query_id in made:
        assert len(query_id) == 32
        assert (query_id[12], query_id[16] in "89ab") == ("7", True)
        when = made_at(query_id)
        assert when is not None
        assert before <= when <= datetime.now(UTC)
    milliseconds = [query_id[:12] for query_id in made]
    assert milliseconds == sorted(milliseconds)


@pytest.mark.parametrize(
    "query_id",
    [
        "",
        "0" * 32,
        "f" * 32,
        "ffffffffffff7fffbfffffffffffffff",  # behind the year 9999
        "019abcde12344abc8123456789abcdef",  # version 4
        "019ABCDE12347ABC8123456789ABCDEF",
        "019abcde12347abc8123456789abcdef\n",
    ],
)
def test_what_was_not_made_here_has_no_time(query_id: str) -> None:
    assert made_at(query_id) is None


@given(st.text(max_size=40))
def test_any_text_has_a_time_or_none(query_id: str) -> None:
    assert made_at(query_id) is None or len(query_id) == 32


def test_the_month_is_that_of_the_id_in_utc() -> None:
    assert month_index(datetime.fromisoformat("2026-02-28T23:30:00-02:00")) == "braid-queries-2026.03"
    # the example of RFC 9562, appendix A.6
    assert made_at("017f22e279b07cc398c4dc0c0c07398f") == datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)


def test_an_entry_holds_ids_and_scores_and_no_text_of_a_passage() -> None:
    made = entry(
        hits=[hit("p1", "d1", score=0.9, lexical=3.5, fused=0.9), hit("p2", "d2", score=0.4)],
        first_rank=11,
        degraded=["rerank", "lexical", "rerank"],
        scope=Scope("acme", frozenset({"user:ann", "group:a"})),
        index_generation=7,
        abstained=False,
    )
    source = made.source
    assert source["results"] == [
        {"id": "p1", "document_id": "d1", "rank": 11, "score": 0.9, "lexical": 3.5, "fused": 0.9},
        {"id": "p2", "document_id": "d2", "rank": 12, "score": 0.4},
    ]
    assert (source["kind"], source["query_id"]) == ("query", made.id)
    assert (source["tenant"], source["principals"]) == ("acme", ["group:a", "user:ann"])
    assert (source["degraded"], source["abstained"], source["index_generation"]) == (["rerank", "lexical"], False, 7)
    assert datetime.fromisoformat(source["timestamp"]) == made.made_at
    assert b"the text of a passage" not in orjson.dumps(source)
    assert b"a title" not in orjson.dumps(source)


def test_the_operator_has_no_principals_and_only_the_first_results_are_kept() -> None:
    source = entry(hits=[hit(f"p{n}") for n in range(50)], alpha=None, fusion=None).source
    assert len(source["results"]) == KEPT_RESULTS == 20
    assert not {"principals", "alpha", "fusion", "abstained"} & source.keys()


def test_callers_are_told_apart_by_their_subject_too() -> None:
    staff = frozenset({"staff"})
    scopes = [
        Scope("t"),  # the operator
        Scope("t", None, "key:1"),  # an admin key
        Scope("t", None, "key:2"),
        Scope("t", None, "user:ann"),
        Scope("t", staff, "key:3"),
        Scope("t", staff, "key:4"),
        Scope("t", staff | {"user:bob"}, "user:bob"),
        Scope("t", frozenset({"user:eve"}), "user:eve"),
        Scope("t", frozenset(), "key:5"),
    ]
    found = [principals(scope) for scope in scopes]
    assert found[0] is None
    assert found[1] == ["key:1"]
    assert found[4] == ["key:3", "staff"]
    assert found[6] == ["staff", "user:bob"]
    assert all(one != other for n, one in enumerate(found) for other in found[n + 1 :])


def test_hashed_keeps_no_text() -> None:
    source = entry("hashed", query="Where is the KEY?").source
    assert "query" not in source
    assert b"key" not in orjson.dumps(source).lower()
    assert source["query_hash"] == entry("hashed", query=" where  is the key? ").source["query_hash"]


def test_hashes_differ_by_tenant_by_key_and_from_those_of_the_full_log() -> None:
    other = load_settings(query_log="hashed", query_log_key="another key of mine")
    found = {
        query_hash(settings("full").query_log, "a", "q"),
        query_hash(settings("hashed").query_log, "a", "q"),
        query_hash(settings("hashed").query_log, "b", "q"),
        query_hash(other.query_log, "a", "q"),
    }
    assert len(found) == 4


def test_equal_queries_are_equal_whatever_their_spelling() -> None:
    assert normalised("  Straße\tﬁve ") == normalised("STRASSE five") == "strasse five"


def test_an_id_that_is_none_of_ours_is_a_defect() -> None:
    with pytest.raises(ValueError, match="new_query_id"):
        entry(query_id="0" * 32)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"query_log": "hashed"}, "BRAID_QUERY_LOG=hashed needs BRAID_QUERY_LOG_KEY"),
        ({"query_log": "hashed", "query_log_key": "short"}, "BRAID_QUERY_LOG_KEY: .*16"),
        ({"query_log": "some"}, "BRAID_QUERY_LOG='some'"),
        ({"query_log_days": 0}, "BRAID_QUERY_LOG_DAYS=0"),
    ],
)
def test_wrong_settings_stop_the_start(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        load_settings(**given)
    assert "short" not in str(caught.value)
