from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.errors import StoreNotReady, StoreReadOnly, StoreUnavailable
from app.search.readiness_gate import ReadinessGate, StoreState, require_changeable, require_ready, require_writable

GOOD = StoreState(differences=(), shards=1, native_rrf_across_shards=False)
BAD = StoreState(differences=("pipeline braid-hybrid-rrf is missing",), shards=1, native_rrf_across_shards=False)


def test_one_check_serves_all_that_come_while_it_runs() -> None:
    asked = []
    release = threading.Event()

    def check() -> StoreState:
        asked.append(1)
        release.wait(5)
        return GOOD

    with ThreadPoolExecutor() as executor:
        gate = ReadinessGate(check, executor, max_age_s=60)
        jobs = [gate.begin() for _ in range(5)]
        release.set()
        assert [job.result(5) for job in jobs] == [GOOD] * 5
        assert gate.begin().result(5) == GOOD
    assert len(asked) == 1


def test_an_old_check_is_done_anew_and_a_bad_state_blocks_at_once() -> None:
    states = [GOOD, BAD, GOOD]
    with ThreadPoolExecutor() as executor:
        gate = ReadinessGate(lambda: states.pop(0), executor, max_age_s=-1)
        first = gate.begin()
        assert gate.state(first, 5) == GOOD
        second = gate.begin()
        with pytest.raises(StoreNotReady, match="braid-hybrid-rrf is missing"):
            require_ready(second.result(5))
        third = gate.begin()
        assert gate.state(third, 5) == GOOD


def test_a_check_that_hangs_is_a_cluster_that_does_not_answer() -> None:
    release = threading.Event()

    def check() -> StoreState:
        release.wait(5)
        return GOOD

    with ThreadPoolExecutor() as executor:
        gate = ReadinessGate(check, executor)
        with pytest.raises(StoreUnavailable, match=r"within 0\.1 s"):
            gate.state(gate.begin(), 0.05)
        release.set()


def test_a_failed_check_is_the_callers_error_and_is_not_remembered() -> None:
    answers: list[StoreState | Exception] = [StoreUnavailable("away"), GOOD]

    def check() -> StoreState:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with ThreadPoolExecutor() as executor:
        gate = ReadinessGate(check, executor, max_age_s=60)
        job = gate.begin()
        with pytest.raises(StoreUnavailable):
            gate.state(job, 5)
        assert gate.state(gate.begin(), 5) == GOOD


def test_the_next_check_starts_before_the_last_is_too_old() -> None:
    states = [GOOD, BAD]
    started, release = threading.Semaphore(0), threading.Event()

    def check() -> StoreState:
        started.release()
        if len(states) == 1:
            release.wait(5)
        return states.pop(0)

    with ThreadPoolExecutor() as executor:
        gate = ReadinessGate(check, executor, max_age_s=10)
        assert gate.begin().result(5) == GOOD
        assert started.acquire(timeout=5)
        gate._checked_at -= 6  # as if six seconds had passed
        assert gate.begin().result(0) == GOOD
        assert started.acquire(timeout=5), "no check was started ahead"
        assert gate.begin().result(0) == GOOD
        gate._checked_at -= 5
        late = gate.begin()
        assert not late.done()
        release.set()
        assert late.result(5) == BAD


def test_an_index_that_is_only_searched_is_ready_and_not_writable() -> None:
    old = StoreState(differences=(), shards=1, native_rrf_across_shards=False, read_only="index x is old")
    assert require_ready(old) is old
    assert require_writable(GOOD) is GOOD
    with pytest.raises(StoreReadOnly, match="index x is old"):
        require_writable(old)
    with pytest.raises(StoreNotReady, match="braid-hybrid-rrf is missing"):
        require_writable(BAD)


def test_readers_change_while_the_encoder_is_another_one_and_for_no_other_reason() -> None:
    found = require_changeable(StoreState((), 1, False, other_vectors="other vectors"))
    assert found.closed is None
    for reason in ("read_only", "other_languages"):
        with pytest.raises(StoreReadOnly, match="not written"):
            require_changeable(StoreState((), 1, False, other_vectors="other vectors", **{reason: "not written"}))
    with pytest.raises(StoreNotReady):
        require_changeable(BAD)
