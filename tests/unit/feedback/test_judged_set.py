"""Votes become judgements, and pairs for distillation."""

from __future__ import annotations

from datetime import date
from typing import Any, cast

import pytest

from app.feedback.judged_set import count_votes, pairs_of
from app.store.client import Cluster
from app.store.query_log import Label, Vote, expired


def vote(document_id: str, result_id: str, label: Label, count: int = 1) -> Vote:
    return Vote(document_id, result_id, label, count)


VOTES = [
    vote("d1", "d1-a", "relevant", 2),
    vote("d1", "d1-b", "irrelevant"),
    vote("d2", "d2-a", "relevant"),
    vote("d2", "d2-b", "irrelevant"),
    vote("d3", "d3-a", "irrelevant", 3),
]


def test_a_documents_votes_are_those_of_its_passages_and_a_tie_is_no_judgement() -> None:
    judged, dropped = count_votes(VOTES, unit="document")
    assert judged == {"d1": 1, "d3": 0}
    assert dropped == {"votes-tie": 2}


def test_passages_are_judged_each_for_itself() -> None:
    judged, dropped = count_votes(VOTES, unit="passage")
    assert judged == {"d1-a": 1, "d1-b": 0, "d2-a": 1, "d2-b": 0, "d3-a": 0}
    assert not dropped


@pytest.mark.parametrize(
    ("least", "judged", "dropped"),
    [
        (3, {"d1": 1, "d3": 0}, {"too-few-votes": 2}),
        (4, {}, {"too-few-votes": 8}),
    ],
)
def test_few_votes_are_no_judgement(least: int, judged: dict[str, int], dropped: dict[str, int]) -> None:
    assert count_votes(VOTES, unit="document", min_votes=least) == (judged, dropped)


def test_pairs_are_the_results_with_their_scores_and_labels_then_what_else_was_judged() -> None:
    entry = {
        "query": "q",
        "results": [
            {"id": "d9-a", "document_id": "d9", "rank": 1, "score": 0.8, "lexical": 4.0},
            {"id": "d1-a", "document_id": "d1", "rank": 2, "score": 0.5},
        ],
    }
    found = list(pairs_of(entry, [*VOTES[:2], vote("d2", "d2-a", "relevant"), vote("d2", "d2-a", "irrelevant")]))
    assert found == [
        {
            "query": "q",
            "passage_id": "d9-a",
            "document_id": "d9",
            "label": None,
            "source": "results",
            "rank": 1,
            "score": 0.8,
            "lexical": 4.0,
        },
        {
            "query": "q",
            "passage_id": "d1-a",
            "document_id": "d1",
            "label": 1,
            "source": "feedback",
            "rank": 2,
            "score": 0.5,
        },
        {"query": "q", "passage_id": "d1-b", "document_id": "d1", "label": 0, "source": "feedback"},
    ]


def test_only_months_that_are_old_as_a_whole_are_removed() -> None:
    class Months:
        def request(self, *_: Any, **__: Any) -> Any:
            names = ["2026.01", "2025.12", "2025.11", "2025.09", "2025.13", "copy"]
            return {f"braid-queries-{name}": {} for name in names}

    months = cast(Cluster, Months())
    assert expired(months, 30, date(2026, 1, 30)) == ["braid-queries-2025.09", "braid-queries-2025.11"]
    assert expired(months, 30, date(2026, 1, 31))[-1] == "braid-queries-2025.12"
    assert expired(months, 3650, date(2026, 1, 31)) == []
