from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from prometheus_client import REGISTRY

from app.config import load_settings
from app.deadline import Deadline
from app.errors import DeadlineExceeded, Overloaded
from app.gateway.admission import Admission

LONG = 600_000


def long() -> Deadline:
    return Deadline.after(LONG)


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.002)


class Desk:
    """Requests that stay inside until they are let go."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.inside: list[str] = []
        self._lock = threading.Lock()
        self._doors: dict[str, threading.Event] = {}
        self._workers = ThreadPoolExecutor(32)
        self.jobs: dict[str, Future[None]] = {}

    def come(self, name: str, deadline: Deadline | None = None) -> None:
        self._doors[name] = threading.Event()
        self.jobs[name] = self._workers.submit(self._stay, name, deadline or long())

    def go(self, name: str) -> None:
        self._doors[name].set()
        self.jobs[name].result(20)

    def waiting(self, count: int) -> None:
        eventually(lambda: len(self.admission._waiting) == count)

    def is_inside(self, *names: str) -> None:
        eventually(lambda: len(self.inside) == len(names))
        assert self.inside == list(names)

    def close(self) -> None:
        for door in self._doors.values():
            door.set()
        self._workers.shutdown()

    def _stay(self, name: str, deadline: Deadline) -> None:
        with self.admission.enter(deadline):
            with self._lock:
                self.inside.append(name)
            assert self._doors[name].wait(60)
            with self._lock:
                self.inside.remove(name)


@pytest.fixture
def desk() -> Iterator[Desk]:
    found = Desk(Admission(2, 3, work="for-a-test"))
    yield found
    found.close()


def test_so_many_at_once_and_the_others_in_order(desk: Desk) -> None:
    desk.come("a")
    desk.is_inside("a")
    desk.come("b")
    desk.is_inside("a", "b")
    for count, name in enumerate(("c", "d", "e"), start=1):
        desk.come(name)
        desk.waiting(count)
    assert REGISTRY.get_sample_value("admission_in_flight", {"work": "for-a-test"}) == 2
    assert REGISTRY.get_sample_value("admission_waiting", {"work": "for-a-test"}) == 3
    desk.go("b")
    desk.is_inside("a", "c")
    desk.go("a")
    desk.is_inside("c", "d")
    desk.go("d")
    desk.is_inside("c", "e")
    desk.go("c")
    desk.go("e")
    assert REGISTRY.get_sample_value("admission_in_flight", {"work": "for-a-test"}) == 0


def test_a_full_queue_refuses_at_once_with_a_time_to_come_back(desk: Desk) -> None:
    for name in "abcde":
        desk.come(name)
    desk.waiting(3)
    before = REGISTRY.get_sample_value("admission_refused_total", {"work": "for-a-test", "reason": "queue-full"}) or 0
    with pytest.raises(Overloaded, match="3 requests are already waiting") as caught, desk.admission.enter(long()):
        pytest.fail("it was let in")
    assert caught.value.retry_after_s >= 0.1
    after = REGISTRY.get_sample_value("admission_refused_total", {"work": "for-a-test", "reason": "queue-full"})
    assert after == before + 1


def test_who_would_wait_for_more_than_half_of_its_time_is_refused_when_it_comes() -> None:
    admission = Admission(1, 10)
    with admission.enter(long()):
        time.sleep(0.4)
    with admission.enter(long()):
        assert admission.expected_wait_s > 0.3
        with pytest.raises(Overloaded, match="waiting would leave too little time") as caught:
            admission.enter(Deadline.after(300)).__enter__()
        assert 0.3 < caught.value.retry_after_s < 30


def test_who_has_waited_for_half_of_its_time_gives_up_its_place(desk: Desk) -> None:
    desk.come("a")
    desk.come("b")
    eventually(lambda: len(desk.inside) == 2)
    with pytest.raises(Overloaded, match="without a free slot"), desk.admission.enter(Deadline.after(200)):
        pytest.fail("it was let in")
    desk.waiting(0)
    desk.come("c")
    desk.waiting(1)
    desk.go("a")
    eventually(lambda: "c" in desk.inside)


def test_a_slot_is_given_back_by_whoever_fails() -> None:
    admission = Admission(1, 0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), admission.enter(long()):
            raise ZeroDivisionError
    with admission.enter(long()), pytest.raises(Overloaded), admission.enter(long()):
        pytest.fail("two at once")


def test_time_that_is_spent_already_is_said() -> None:
    with pytest.raises(DeadlineExceeded), Admission(1, 0).enter(Deadline(time.monotonic() - 1, 50)):
        pytest.fail("it was let in")


def test_never_more_than_the_bound_however_many_come() -> None:
    admission, lock, now, most = Admission(3, 500), threading.Lock(), [0], [0]

    def ask(_: int) -> None:
        with admission.enter(long()):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.001)
            with lock:
                now[0] -= 1

    with ThreadPoolExecutor(24) as workers:
        list(workers.map(ask, range(300)))
    assert most[0] == 3
    assert admission._in_flight == 0


def test_the_settings_say_how_many() -> None:
    assert Admission.of(load_settings().limits).concurrency >= 4
    given = Admission.of(load_settings(concurrency=3, queue=7).limits)
    assert (given.concurrency, given.queue) == (3, 7)
