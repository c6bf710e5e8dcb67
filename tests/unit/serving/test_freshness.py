from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.errors import StoreUnavailable
from app.serving.freshness import Freshness
from app.store.versions import TenantState


def state(number: int) -> TenantState:
    return TenantState(str(number), frozenset())


def test_one_question_serves_all_that_come_while_it_is_asked() -> None:
    asked: list[str] = []
    release = threading.Event()

    def ask(tenant: str) -> TenantState:
        asked.append(tenant)
        release.wait(5)
        return state(len(asked))

    with ThreadPoolExecutor() as executor:
        fresh = Freshness(ask, executor, max_age_s=60)
        with ThreadPoolExecutor() as callers:
            jobs = [callers.submit(fresh.current, "a", 1, 5) for _ in range(5)]
            time.sleep(0.05)
            release.set()
            assert [job.result(5) for job in jobs] == [state(1)] * 5
        assert fresh.current("a", 1, 5) == state(1)
        assert fresh.current("b", 1, 5) == state(2)
    assert asked == ["a", "b"]


def test_a_write_makes_it_ask_again_whatever_is_under_way() -> None:
    numbers = iter(range(1, 10))
    release = threading.Event()

    def ask(_: str) -> TenantState:
        number = next(numbers)
        if number == 1:
            release.wait(5)
        return state(number)

    with ThreadPoolExecutor() as executor:
        fresh = Freshness(ask, executor, max_age_s=60)
        with ThreadPoolExecutor() as callers:
            before = callers.submit(fresh.current, "a", 1, 5)
            while not before.running():
                time.sleep(0.001)
            time.sleep(0.02)
            assert fresh.current("a", 2, 5) == state(2)  # asked after the write, though the first still runs
            release.set()
            assert before.result(5) == state(1)
        assert fresh.current("a", 2, 5) == state(2)  # what was asked before is not taken for newer


def test_an_old_answer_is_asked_anew_and_a_failure_is_not_kept() -> None:
    outcomes: list[TenantState | StoreUnavailable] = [state(1), StoreUnavailable("away"), state(3)]

    def ask(_: str) -> TenantState:
        found = outcomes.pop(0)
        if isinstance(found, StoreUnavailable):
            raise found
        return found

    with ThreadPoolExecutor() as executor:
        fresh = Freshness(ask, executor, max_age_s=0)
        assert fresh.current("a", 1, 5) == state(1)
        with pytest.raises(StoreUnavailable, match="away"):
            fresh.current("a", 1, 5)
        assert fresh.current("a", 1, 5) == state(3)
