from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from app.degradation import Degradation, Reason
from app.search.trace import Trace


def test_threads_lose_nothing_that_another_one_writes() -> None:
    trace = Trace()

    def stage(number: int) -> None:
        trace.degrade("vector", Reason.TIMEOUT, str(number))
        trace.took(1, after_others=True)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(stage, range(2000)))
    assert sorted(int(item.reason.split()[1]) for item in trace.degraded) == list(range(2000))
    assert trace.timings == {"opensearch_took_ms": 2000.0}


def test_legs_count_once_and_what_is_fetched_after_them_is_added() -> None:
    trace = Trace()
    trace.took(30, after_others=False)
    trace.took(20, after_others=False)
    assert trace.timings == {"opensearch_took_ms": 30.0}
    trace.took(5, after_others=True)
    assert trace.timings == {"opensearch_took_ms": 35.0}


def test_a_block_that_fails_is_timed_and_told_all_the_same() -> None:
    trace, seen = Trace(), list[float]()
    for _ in range(2):
        with pytest.raises(ValueError, match="why"), trace.timed("fetch_ms", seen.append):
            raise ValueError("why")
    assert trace.timings.keys() == {"fetch_ms"}
    assert trace.timings["fetch_ms"] == pytest.approx(sum(seen) * 1000, abs=0.01)


def test_what_is_given_out_is_a_copy() -> None:
    trace = Trace()
    before, timings = trace.degraded, trace.timings
    trace.degrade("rerank", Reason.DEADLINE, "late")
    trace.finish()
    assert (before, timings) == ((), {})


def test_a_reading_that_is_given_up_takes_its_reasons_along_but_not_its_time() -> None:
    trace = Trace()
    trace.state(Degradation("lexical", Reason.QUERY_CUT.with_detail("cut")))
    before = trace.degraded
    with trace.timed("fetch_ms"):
        trace.degrade("fetch", Reason.PARTIAL, "1 of 3 shards failed")
    trace.rewind(before)
    assert trace.degraded == (Degradation("lexical", "query-cut: cut"),)
    assert "fetch_ms" in trace.timings
