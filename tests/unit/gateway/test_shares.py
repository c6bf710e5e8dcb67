from __future__ import annotations

import random
import threading
from collections import Counter

import pytest

from app.errors import Overloaded
from app.gateway.shares import Hold, Shares


def shares(total: int) -> Shares:
    return Shares(total, work="test", what="things (BRAID_THINGS)", retry_after_s=3)


def fill(found: Shares, owner: str) -> list[Hold]:
    """All that the owner may have."""
    holds = []
    while True:
        try:
            holds.append(found.take(owner))
        except Overloaded:
            return holds


def test_a_caller_holds_what_it_leaves_free_and_the_next_ones_find_room() -> None:
    found = shares(16)
    assert [len(fill(found, owner)) for owner in "abcd"] == [8, 4, 2, 1]
    assert found.used == 15
    assert len(fill(found, "e")) == 1  # the last place is for whoever has none
    with pytest.raises(Overloaded, match="BRAID_THINGS") as refused:
        found.take("f")
    assert refused.value.retry_after_s == 3


def test_one_that_has_nothing_may_take_more_than_half() -> None:
    found = shares(100)
    hold = found.take("a", 80)
    with pytest.raises(Overloaded):
        found.take("a", 1)
    assert found.take("b", 20)
    with pytest.raises(Overloaded):
        found.take("c", 1)
    hold.release()
    hold.release()  # once only
    assert found.used == 20


def test_nobody_is_shut_out_for_good_by_who_takes_all_it_can() -> None:
    """As places are given back, those who hold less get them."""
    found, order = shares(8), random.Random(3)
    holds = {"greedy": fill(found, "greedy"), "late": fill(found, "late")}
    assert (len(holds["greedy"]), len(holds["late"])) == (4, 2)
    for _ in range(50):
        owner = order.choice([name for name in holds if holds[name]])
        holds[owner].pop().release()
        for name in ("greedy", "late"):
            holds[name] += fill(found, name)
    assert min(len(held) for held in holds.values()) >= 2


def test_threads_never_hold_more_than_there_is() -> None:
    found = shares(10)
    most: Counter[str] = Counter()

    def work(owner: str) -> None:
        for _ in range(2000):
            try:
                hold = found.take(owner, 3)
            except Overloaded:
                continue
            most["used"] = max(most["used"], found.used)
            hold.release()

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 3 <= most["used"] <= 10
    assert found.used == 0
