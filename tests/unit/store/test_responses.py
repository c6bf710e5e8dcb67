from __future__ import annotations

from typing import Any

import pytest

from app.errors import StoreError
from app.store.responses import read_response


def response(*scores: float | None) -> dict[str, Any]:
    hits = [
        {"_id": str(n), "_score": score, "_source": {"document_id": "d", "text": "t"}} for n, score in enumerate(scores)
    ]
    return {
        "took": 4,
        "timed_out": False,
        "_shards": {"total": 3, "failed": 1},
        "hits": {"hits": hits, "total": {"value": 9}},
    }


def test_reads_hits_totals_and_partial_failures() -> None:
    found = read_response(response(2.5, 1.0))
    assert [hit.score for hit in found.hits] == [2.5, 1.0]
    assert (found.total, found.took_ms, found.shards, found.failed_shards) == (9, 4, 3, 1)


@pytest.mark.parametrize("delimiter", [-9549511920.4881596645, -4422440593.9791198149])
def test_delimiter_scores_are_an_error(delimiter: float) -> None:
    with pytest.raises(StoreError, match="braid templates apply"):
        read_response(response(0.9, delimiter))
