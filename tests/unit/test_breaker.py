from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import REGISTRY

from app.breaker import Breaker, BreakerOpen

REST_S = 0.05


def fail(breaker: Breaker) -> None:
    with breaker.calling() as call:
        call.failed()


def succeed(breaker: Breaker) -> None:
    with breaker.calling() as call:
        call.ok()


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def opened(failures: int = 2) -> Breaker:
    breaker = Breaker("a part", failures=failures, rest_s=REST_S)
    for _ in range(failures):
        fail(breaker)
    return breaker


def test_it_opens_after_failures_on_end_and_says_when_it_will_be_tried_again() -> None:
    breaker = Breaker("a part", failures=3, rest_s=60)
    for _ in range(2):
        fail(breaker)
    succeed(breaker)
    for _ in range(2):
        fail(breaker)
    assert breaker.closed
    fail(breaker)
    assert not breaker.closed
    with pytest.raises(BreakerOpen, match="a part was unavailable a moment ago") as caught, breaker.calling():
        pytest.fail("it was let through")
    assert 45 < caught.value.retry_after_s <= 75, "the rest has its jitter"


def test_what_says_nothing_counts_for_nothing() -> None:
    breaker = Breaker("a part", failures=1, rest_s=60)
    with pytest.raises(ZeroDivisionError), breaker.calling():
        raise ZeroDivisionError
    assert breaker.closed


def test_one_call_alone_finds_out_whether_it_is_back() -> None:
    breaker = opened()
    eventually(lambda: breaker.rested)
    inside, leave = threading.Event(), threading.Event()

    def trial() -> None:
        with breaker.calling() as call:
            inside.set()
            leave.wait(20)
            call.ok()

    thread = threading.Thread(target=trial)
    thread.start()
    assert inside.wait(20)
    for _ in range(3):
        with pytest.raises(BreakerOpen), breaker.calling():
            pytest.fail("a second trial")
    leave.set()
    thread.join()
    assert breaker.closed
    succeed(breaker)


def test_many_at_once_are_one_trial() -> None:
    breaker = opened()
    eventually(lambda: breaker.rested)
    start, through = threading.Barrier(16), threading.Semaphore(0)
    let = []

    def ask() -> None:
        start.wait()
        try:
            with breaker.calling() as call:
                let.append(1)
                through.acquire(timeout=20)
                call.failed()
        except BreakerOpen:
            through.release()  # a refused one lets the trial end

    with ThreadPoolExecutor(16) as workers:
        for job in [workers.submit(ask) for _ in range(16)]:
            job.result()
    assert let == [1]
    assert not breaker.closed


def test_a_trial_that_fails_is_followed_by_another_rest() -> None:
    breaker = opened()
    eventually(lambda: breaker.rested)
    fail(breaker)
    assert not breaker.closed
    with pytest.raises(BreakerOpen), breaker.calling():
        pytest.fail("it was let through")
    eventually(lambda: breaker.rested)
    succeed(breaker)
    assert breaker.closed


def test_a_trial_that_learns_nothing_makes_room_for_the_next() -> None:
    breaker = opened()
    eventually(lambda: breaker.rested)
    with breaker.calling():
        pass
    assert not breaker.closed
    succeed(breaker)
    assert breaker.closed


def test_a_trial_that_is_answered_lets_others_through_while_it_goes_on() -> None:
    breaker = opened()
    eventually(lambda: breaker.rested)
    with breaker.calling() as call:
        call.ok()
        succeed(breaker)
        assert breaker.closed


def test_nobody_there_opens_at_once() -> None:
    breaker = Breaker("a part", failures=50, rest_s=60)
    with breaker.calling() as call:
        call.gone()
    assert not breaker.closed


def test_calls_run_side_by_side() -> None:
    breaker = Breaker("a part", failures=1, rest_s=60)
    both = threading.Barrier(2)

    def call() -> None:
        with breaker.calling():
            both.wait(20)

    with ThreadPoolExecutor(2) as workers:
        for job in [workers.submit(call), workers.submit(call)]:
            job.result()


def test_late_failures_of_calls_that_began_before_it_opened_do_not_prolong_the_rest() -> None:
    breaker = Breaker("a part", failures=1, rest_s=REST_S)
    with breaker.calling() as slow:
        fail(breaker)
        eventually(lambda: breaker.rested)
        slow.failed()
    assert breaker.rested
    succeed(breaker)


def test_its_state_is_a_metric() -> None:
    breaker = Breaker("a part", failures=1, rest_s=60, label="for-a-test")
    labels = {"part": "for-a-test"}
    assert REGISTRY.get_sample_value("breaker_state", labels) == 0
    fail(breaker)
    assert REGISTRY.get_sample_value("breaker_state", labels) == 1
    assert REGISTRY.get_sample_value("breaker_opened_total", labels) == 1
