from __future__ import annotations

import threading
import time
from concurrent.futures import Future

from app.request_threads import RequestThreads, step_aside


class Calls:
    """Calls that begin, perhaps step aside, and wait to be let go."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()

    def work(self, aside: bool = False) -> str:
        if aside:
            step_aside()
            step_aside()  # does nothing more
        self.begun.release()
        assert self.go.wait(60)
        return "done"


def begun(calls: Calls, seconds: float = 60) -> bool:
    return calls.begun.acquire(timeout=seconds)


def test_as_many_calls_run_as_there_are_turns_however_many_threads_there_are() -> None:
    calls, pool = Calls(), RequestThreads(2, 10)
    found = [pool.submit(calls.work) for _ in range(6)]
    assert begun(calls)
    assert begun(calls)
    assert not begun(calls, 0.3), "a third one ran"
    calls.go.set()
    assert [future.result(60) for future in found] == ["done"] * 6
    pool.shutdown()


def test_calls_that_stepped_aside_take_no_turn_and_a_turn_is_given_back_once() -> None:
    waiting, working, pool = Calls(), Calls(), RequestThreads(2, 10)
    aside = [pool.submit(waiting.work, True) for _ in range(10)]
    assert all(begun(waiting) for _ in range(10))
    found: list[Future[str]] = [pool.submit(working.work) for _ in range(2)]
    assert begun(working)
    assert begun(working)
    waiting.go.set()
    assert [future.result(60) for future in aside] == ["done"] * 10
    found += [pool.submit(working.work) for _ in range(2)]
    assert not begun(working, 0.3), "those that ended gave back turns that they no longer had"
    working.go.set()
    assert [future.result(60) for future in found] == ["done"] * 4
    pool.shutdown()


def test_a_call_that_fails_gives_its_turn_back() -> None:
    pool = RequestThreads(1, 0)
    failed = [pool.submit(int, "x") for _ in range(3)]
    assert {type(future.exception(60)) for future in failed} == {ValueError}
    assert pool.submit(int, "7").result(60) == 7
    pool.shutdown()


def test_elsewhere_nothing_is_given_back() -> None:
    step_aside()
    pool, started = RequestThreads(1, 1), time.monotonic()
    assert pool.submit(time.sleep, 0.1).result(60) is None
    assert time.monotonic() - started >= 0.1
    pool.shutdown()
