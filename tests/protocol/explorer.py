"""Explores all states of a configuration, breadth first, so that the steps to a violation are as few as can be."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

from tests.protocol.state import Erase, Index, Label, State, Violation, WriteHead
from tests.protocol.steps import Protocol


class TooManyStates(Exception):
    """A configuration is larger than expected."""


class Counterexample(NamedTuple):
    """A violation and the steps that lead to it."""

    violation: Violation
    trace: tuple[Label, ...]
    operations: tuple[str, ...]
    """By process, for `describe`."""

    def describe(self) -> str:
        """The violation and its steps, one a line."""
        lines = [f"{n:3}. {_describe(label, self.operations)}" for n, label in enumerate(self.trace, 1)]
        return "\n".join([str(self.violation), *lines])


class Exploration(NamedTuple):
    """What came of a configuration."""

    name: str
    states: int
    counterexamples: dict[str, Counterexample]
    """By kind of violation: the shortest one."""
    seconds: float


def explore(protocol: Protocol, *, go_on: bool = False, limit: int = 2_000_000) -> Exploration:
    """Visit all states that can be reached.

    Args:
        go_on: look for violations of other kinds after the first, also behind states that violate something.
        limit: how many states there may be; a protocol without one of its safeguards may have any number.

    Raises:
        TooManyStates: there are more, and the first `limit` have no violation.
    """
    began = time.perf_counter()
    collects = gc.isenabled()
    gc.disable()  # there are millions of tuples, none of them in a cycle
    try:
        states, counterexamples = _explore(protocol, go_on, limit)
    finally:
        if collects:
            gc.enable()
    return Exploration(protocol.configuration.name, states, counterexamples, time.perf_counter() - began)


def _explore(protocol: Protocol, go_on: bool, limit: int) -> tuple[int, dict[str, Counterexample]]:
    start = protocol.start()
    came: dict[State, tuple[State, Label] | None] = {start: None}
    queue = [start]
    found: dict[str, Counterexample] = {}
    for state in queue:  # grows meanwhile
        violation = protocol.find_violation(state)
        moves = list(protocol.moves(state)) if not violation or (go_on and not state.violation) else []
        if not violation and all(label.process is None for label, _ in moves):
            violation = protocol.find_violation_at_end(state)
        if violation and violation.kind not in found:
            operations = tuple(map(str, protocol.operations))
            found[violation.kind] = Counterexample(violation, _trace(state, came), operations)
            if not go_on:
                break
        if len(came) > limit:
            raise TooManyStates(f"{protocol.configuration.name}: more than {limit:,} states; explore a smaller one")
        for label, after in moves:
            origin = (state, label)
            if came.setdefault(after, origin) is origin:  # one hash
                queue.append(after)
    return len(came), found


def _trace(state: State, came: dict[State, tuple[State, Label] | None]) -> tuple[Label, ...]:
    labels: list[Label] = []
    while step := came[state]:
        state, label = step
        labels.append(label)
    return tuple(reversed(labels))


def explore_all(protocols: Iterable[Protocol], *, go_on: bool = False) -> Iterator[Exploration]:
    """Explore on all processors; the results come in the order of `protocols`."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
        try:
            yield from pool.map(partial(explore, go_on=go_on), protocols)
        finally:
            pool.shutdown(cancel_futures=True)


def _describe(label: Label, operations: tuple[str, ...]) -> str:
    if isinstance(label.what, str):
        what = label.what
    else:
        item, accepted = label.what
        if isinstance(item, WriteHead):
            head = item.new
            lists = f"pending {sorted(head.pending)}, garbage {sorted(head.garbage)}"
            what = f"head := {head.version} for {head.access or '-'}, {lists}"
        elif isinstance(item, Index):
            what = f"index {item.token}#{item.position} for {item.acl}, version {item.version}"
        else:
            place = item if isinstance(item, Erase) else item.found
            what = f"delete {place.token}#{place.position}"
        what = what if accepted else f"{what} (rejected)"
        what = what if label.process is not None else f"LATE: {what}"
    if label.process is None:
        return what
    operation = operations[label.process]
    name = "-" if operation in ("sweep", "search") else "ABC"[label.process]
    return f"{name} {operation} {label.step}: {what}".replace(" : ", ": ")
