"""Writers of one document at once on a real node: nothing is lost, doubled, undone or told falsely, whatever happens.

The rounds are those of `benchmarks/writers.py`, fewer of them: BRAID_WRITERS_ROUNDS, BRAID_WRITERS_SEED.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.writers.arena import Arena
from tests.writers.oracle import Op, State, Violation, explain
from tests.writers.plans import plans, traces
from tests.writers.rounds import Plan, play

_ROUNDS = int(os.environ.get("BRAID_WRITERS_ROUNDS", "100"))
_SEED = int(os.environ.get("BRAID_WRITERS_SEED", "7"))
POST, READERS, DELETE = Op("post", "p"), Op("post", "v0", ("it",)), Op("delete")
TO_HR = Op("patch", acl=("hr",))


@pytest.fixture(scope="module")
def arena(opensearch_url: str) -> Iterator[Arena]:
    with Arena(opensearch_url) as found:
        yield found


@pytest.mark.parametrize("part", range(4))
def test_writers_that_are_stopped_killed_and_delayed(arena: Arena, part: int) -> None:
    for plan in plans(_ROUNDS, _SEED)[part::4]:
        play(arena, plan)


@pytest.mark.parametrize("other", [DELETE, POST], ids=str)
def test_a_change_of_readers_never_commits_an_empty_document(arena: Arena, other: Op) -> None:
    plan = Plan("readers", "public", (READERS, other), (("run", 0, 1), ("end", 1, 0)))
    assert play(arena, plan).answers[0] == "overtaken"


@pytest.mark.parametrize(
    ("start", "first", "steps", "again"),
    [
        ("hr", POST, 5, POST),
        ("public", Op("patch", acl=("it",)), 2, READERS),
        ("public", Op("post", "p", ("hr",)), 5, TO_HR),
    ],
    ids=["post", "readers", "patch"],
)
def test_what_a_killed_writer_left_is_gone_when_the_same_is_answered_as_done(
    arena: Arena, start: str, first: Op, steps: int, again: Op
) -> None:
    play(arena, Plan("again", start, (first, again), (("run", 0, steps), ("kill", 0, 0), ("end", 1, 0))))


def test_the_oracle_notices_a_missing_safeguard(opensearch_url: str) -> None:
    with Arena(opensearch_url, without="fence") as broken, pytest.raises(Violation):
        play(broken, traces("fence")[0])


def test_orders_that_explain_answers() -> None:
    patch, start = Op("patch", acl=("hr",)), State("v0", ("public",))
    both = [(POST, "updated"), (patch, "updated")]
    assert explain(start, both, State("p", ("hr",)))
    assert not explain(start, both, State("p", ("public",)))
    assert not explain(start, both, State(None, ("hr",)))
    assert not explain(start, [(DELETE, "deleted"), (TO_HR, "updated")], State("v0", ("hr",)))
    assert explain(start, [(DELETE, "killed"), (TO_HR, "updated")], State("v0", ("hr",)))
