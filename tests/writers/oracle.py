"""What is right when several write one document: the specification, and the checks against it. No code of the writers.

`Watch` follows the head and what native searches see after each step of writers that move one at a time; `explain`
asks of writers that ran freely whether one of their orders gives what is there now.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.store.heads import Head

PUBLIC = ("public",)
_DONE = frozenset({"created", "updated", "unchanged", "deleted"})
_NOTHING = frozenset({"overtaken", "missing", "unchanged"})
_EITHER = frozenset({"unknown", "unavailable", "killed"})


class Violation(AssertionError):
    """Something that must never happen."""


@dataclass(frozen=True, slots=True)
class Op:
    """What one writer is to do. `content` of a put: the name of its text."""

    kind: Literal["post", "ingest", "patch", "delete", "sync", "sweep"]
    content: str = ""
    acl: tuple[str, ...] | None = None

    @property
    def puts(self) -> bool:
        return self.kind in ("post", "ingest")

    def __str__(self) -> str:
        return " ".join((self.kind, *([self.content] if self.content == "v0" else []), *(self.acl or ())))


@dataclass(frozen=True, slots=True)
class State:
    """A document as the specification sees it: its content (None: there is none) and readers, kept when it goes."""

    content: str | None
    acl: tuple[str, ...] | None

    def after(self, op: Op) -> State:
        """What the operation makes of it; the same where it finds nothing to do."""
        if op.puts:
            return State(op.content, op.acl or self.acl or PUBLIC)
        if op.kind in ("delete", "sync") and self.content is not None:
            return State(None, self.acl)
        if op.kind == "patch" and self.content is not None:
            return State(self.content, op.acl)
        return self

    def answer(self, op: Op) -> str:
        """How the operation is answered if it finds this state."""
        if op.puts:
            return "created" if self.content is None else "unchanged" if self.after(op) == self else "updated"
        if self.content is None:
            return "missing"
        return "deleted" if op.kind in ("delete", "sync") else "unchanged" if self.after(op) == self else "updated"


def explain(start: State, ops: Sequence[tuple[Op, str]], final: State, after: Sequence[tuple[int, int]] = ()) -> bool:
    """Whether some order of the operations gives their answers and the final state.

    Args:
        start: before all of them.
        ops: with their answers; what was not known, or killed, may have taken effect or not.
        final: after all of them.
        after: pairs (i, j): i was answered before j began.
    """
    open_ones = [i for i, (_, answer) in enumerate(ops) if answer in _EITHER]
    for left_out in _subsets(open_ones):
        ran = [i for i, (_, answer) in enumerate(ops) if i not in left_out and answer != "overtaken"]
        for order in itertools.permutations(ran):
            place = {i: n for n, i in enumerate(order)}
            wrong = (ops[i][1] not in _EITHER and i in place and j in place and place[i] > place[j] for i, j in after)
            if any(wrong):
                continue
            state = start
            for i in order:
                op, answer = ops[i]
                said = state.answer(op)
                again = (said, answer) == ("unchanged", "updated")  # an open head: what another one left is done again
                if answer not in _EITHER and said != answer and not again:
                    break
                state = state.after(op)
            else:
                if state == final:
                    return True
    return False


def _subsets(items: Sequence[int]) -> Iterator[frozenset[int]]:
    for size in range(len(items) + 1):
        yield from map(frozenset, itertools.combinations(items, size))


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage as a native search shows it."""

    token: str
    position: int
    acl: tuple[str, ...]
    version: int


@dataclass(slots=True)
class _Effect:
    rev: int
    token: str
    """Of a put; empty: only readers or existence changed."""
    before: Head


@dataclass(slots=True)
class Watch:
    """Follows one document through one round."""

    ops: Sequence[Op]
    start_head: Head
    start_content: str = "v0"
    history: list[Head] = field(default_factory=list)
    begun: dict[int, int] = field(default_factory=dict)
    """Operation -> how long the history was when it began."""
    answers: dict[int, str] = field(default_factory=dict)
    _effects: dict[int, _Effect] = field(default_factory=dict)
    _owner: dict[str, int] = field(default_factory=dict)
    _contents: dict[str, str] = field(default_factory=dict)
    _must_see: set[str] = field(default_factory=set)
    _writers: dict[int, int] = field(default_factory=dict)
    """Revision -> operation that wrote it (-1: a sweep)."""

    def __post_init__(self) -> None:
        self.history.append(self.start_head)
        if self.start_head.version is not None:
            self._contents[self.start_head.version.token] = self.start_content
            self._must_see.add(self.start_head.version.token)

    def look(self, mover: int, head: Head, stored: int, hits: Sequence[Hit]) -> None:
        """After a step of the operation `mover` (-1: a sweep): the head, how many passages of the version in force
        there are by a realtime get, and what searches see. Raises Violation."""
        self._move(mover, self.history[-1], head)
        self.history.append(head)
        if head.version is not None:
            if stored < max(1, head.version.passages):
                raise Violation(f"LOST: {stored} of {head.version.passages} passages in force exist")
            seen = sum(hit.token == head.version.token for hit in hits)
            if head.version.token in self._must_see and seen < head.version.passages:
                raise Violation(f"NOT FOUND: searches see {seen} of {head.version.passages} passages in force")
        if not head.open:
            self._tidy(head, hits, "the head is tidy")
        for i, effect in self._effects.items():
            if self.answers.get(i) in _DONE:
                self._native(i, effect, hits)

    def answered(self, i: int, answer: str, hits: Sequence[Hit], *, tampered: bool, alone: bool) -> None:
        """After an operation ended. `tampered`: requests of it were held back; `alone`: no other writer lives.

        Raises Violation.
        """
        self.answers[i] = answer
        op, effect, head = self.ops[i], self._effects.get(i), self.history[-1]
        if op.kind == "sweep":
            return
        window = self.history[max(0, self.begun[i] - 1) :]
        if answer in _EITHER:
            if not tampered:
                raise Violation(f"NO REASON: {op} answered {answer}, and nothing was held back")
            return
        if answer == "overtaken" and effect is None:
            if not tampered and all(self._writers.get(item.rev, i) == i for item in window):
                raise Violation(f"NO REASON: {op} answered overtaken, and nobody else wrote")
            return
        if effect is None:
            self._nothing_done(op, answer, window)
        else:
            self._done(op, answer, effect)
            self._native(i, effect, hits)
            if op.kind == "post" and effect.token:
                self._must_see.add(effect.token)
            return
        if answer == "unchanged" and alone and self._state(head).after(op) == self._state(head):
            pending = {version.token for version in head.pending}
            self._tidy(head, [hit for hit in hits if hit.token not in pending], f"{op} answered unchanged")

    def _nothing_done(self, op: Op, answer: str, window: Sequence[Head]) -> None:
        states = [self._state(head) for head in window]
        if answer == "updated" and any(state.after(op) == state for state in states):
            return  # somebody else had done the same by then
        if answer not in _NOTHING or all(state.answer(op) != answer for state in states):
            raise Violation(f"LIE: {op} answered {answer}, and the head never was so")

    def _done(self, op: Op, answer: str, effect: _Effect) -> None:
        found = self._state(effect.before).answer(op)
        if answer == "updated" and found == "unchanged" and effect.before.open:
            return  # what another one left is done again
        if answer in _NOTHING or found != answer:
            raise Violation(f"LIE: {op} answered {answer}, and by the head it was {found}")

    def state(self) -> State:
        """The document now."""
        return self._state(self.history[-1])

    def _state(self, head: Head) -> State:
        content = self._contents[head.version.token] if head.version is not None else None
        return State(content, head.access.acl if head.access is not None else None)

    def _move(self, mover: int, before: Head, now: Head) -> None:
        if now.rev == before.rev:
            if now != before:
                raise Violation("HISTORY: the head changed under the same revision")
            return
        if now.rev != before.rev + 1:
            raise Violation(f"HISTORY: revision {before.rev} was followed by {now.rev}")
        self._writers[now.rev] = mover
        known = {version.token for version in before.pending}
        for version in now.pending:
            if version.token not in known:
                self._owner[version.token] = mover
                self._contents[version.token] = self.ops[mover].content
        if now.version is not None and now.version != before.version:
            self._committed(now.version.token, before, now)
            return
        access = before.access
        changed = now.access_rev != before.access_rev
        if now.version != before.version or changed:
            op = self.ops[mover] if mover >= 0 else Op("sweep")
            right = op.kind in ("delete", "sync") if not changed else op.kind == "patch" or op.puts
            if not right:
                raise Violation(f"EFFECT: {op} made {self._state(before)} {self._state(now)}")
            self._took_effect(mover, now, "", before)
            if changed and (now.access is None or now.access.acl != op.acl or now.version != before.version):
                raise Violation(f"READERS: {op} left {now.access}")
            access = now.access if changed else access
        if now.access != access:
            raise Violation(f"READERS: {access} became {now.access} by a write that was none of readers")

    def _committed(self, token: str, before: Head, now: Head) -> None:
        if token not in {version.token for version in before.pending}:
            raise Violation("UNANNOUNCED: a version came into force that was not pending")
        if now.content_hash != token.partition("~")[0]:
            raise Violation("HASH: the head names another content than its token")
        i, access = self._owner[token], before.access
        op = self.ops[i]
        self._took_effect(i, now, token, before)
        if op.acl is None and access is not None and now.access != access:
            raise Violation(f"RESTORED: {op} names no readers and turned {access.acl} into {now.access}")
        if now.access is None or now.access.acl != (op.acl or (access.acl if access is not None else PUBLIC)):
            raise Violation(f"READERS: {op} left {now.access}")
        if before.version is not None:
            self._must_see.add(token)

    def _took_effect(self, i: int, head: Head, token: str, before: Head) -> None:
        if i in self._effects:
            raise Violation(f"TWICE: {self.ops[i]} took effect again")
        if self.answers.get(i) in _NOTHING:
            raise Violation(f"LIE: {self.ops[i]} answered {self.answers[i]} and took effect later")
        self._effects[i] = _Effect(head.rev, token, before)

    def _native(self, i: int, effect: _Effect, hits: Sequence[Hit]) -> None:
        op = self.ops[i]
        for hit in hits:
            readers = op.kind == "patch" or (op.puts and not effect.token)
            wrong = hit.acl != op.acl if readers else hit.token != effect.token
            if hit.version < effect.rev and wrong:
                raise Violation(f"NATIVE: {op} was answered, and searches show a passage of before for {hit.acl}")

    def _tidy(self, head: Head, hits: Sequence[Hit], when: str) -> None:
        for hit in hits:
            if head.version is None or hit.token != head.version.token:
                raise Violation(f"NATIVE: {when}, and searches show another version")
            if head.access is None or hit.acl != head.access.acl:
                raise Violation(f"NATIVE: {when}, and searches show a passage for {hit.acl}")
