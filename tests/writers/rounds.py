"""One round: writers of one document moved by a script, everything checked after each step."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from app.access import PUBLIC
from app.errors import NotFound
from app.ingest.sweep import sweep_heads
from app.store.documents import get_document, refresh
from app.store.filters import Scope, clauses
from app.store.head_check import HeadCheck
from app.store.heads import Head, Version
from tests.writers.arena import Actor, Arena
from tests.writers.gate import Fault
from tests.writers.oracle import Hit, Op, State, Violation, Watch, explain

Move = tuple[str, int, int]
"""(``run``, i, n): writer i makes n steps, or fewer if it ends; (``end``, i, 0): all; (``kill``, i, 0);
(``deliver``, i, 0): its held requests come through; (``sweep``, 0, 0): heads are tidied up, without waiting."""

_SWEEPS = 5
_READERS: tuple[frozenset[str] | None, ...] = (None, frozenset(), frozenset({"hr"}))
_NOBODY = Scope("writers", frozenset())
_HEADS_S = 10.0
_HEADS_ONLY = frozenset({"read", "intent", "seize", "clear", "confirm"})
"""Steps that neither write passages nor refresh: what is stored and shown is as it was."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a round does. What still lives or is held back when the script is over is ended and delivered in order."""

    kind: str
    start: str
    ops: tuple[Op, ...]
    script: tuple[Move, ...]
    faults: tuple[tuple[int, Fault], ...] = ()
    free: bool = False
    """The writers run on their own, without being stopped."""

    def __str__(self) -> str:
        faults = "".join(f"; {i}: {fault.how} {fault.what} {fault.nth}" for i, fault in self.faults)
        script = ", ".join(f"{what} {i}" + (f" x{n}" if n else "") for what, i, n in self.script)
        return f"{self.kind}: {self.start}, {' | '.join(map(str, self.ops))}{faults}: {script}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a round went: the answers, and how many states were checked."""

    answers: tuple[str, ...]
    looks: int


def play(arena: Arena, plan: Plan) -> Outcome:
    """Play a round. Raises Violation, with the plan and what happened."""
    document_id = f"d{secrets.token_hex(6)}"
    head = arena.prepare(document_id, plan.start)
    if any(op.kind == "sync" for op in plan.ops):
        arena.post({"document_id": f"{document_id}-keeper", "text": "This one stays."}, document_id)
    with ExitStack() as stack:
        actors: list[Actor] = []
        for i, op in enumerate(plan.ops):
            faults = tuple(fault for number, fault in plan.faults if number == i)
            actor = arena.start(op, document_id, faults, free=plan.free)
            stack.callback(_close, actor)
            actors.append(actor)
        round_ = _Round(arena, document_id, actors, Watch(plan.ops, head))
        try:
            return round_.run(plan)
        except Violation as error:
            error.add_note(f"{plan}\n{round_.log}")
            raise


def _close(actor: Actor) -> None:
    if not actor.over:
        actor.kill()
    actor.gate.close()


class _Round:
    def __init__(self, arena: Arena, document_id: str, actors: Sequence[Actor], watch: Watch) -> None:
        self._arena = arena
        self._id = document_id
        self._actors = actors
        self._watch = watch
        self._start = watch.state()
        self.log = ""
        self._check = HeadCheck(arena.cluster)
        self._hits: list[Hit] = []
        self._stored: tuple[Version | None, int] | None = None

    def run(self, plan: Plan) -> Outcome:
        if plan.free:
            return self._free(plan)
        for what, i, n in plan.script:
            self._move(what, i, n)
        for i in range(len(self._actors)):
            self._move("end", i, 0)
        for i in range(len(self._actors)):
            self._move("deliver", i, 0)
        self._tidy()
        return Outcome(tuple(actor.answer for actor in self._actors), len(self._watch.history))

    def _move(self, what: str, i: int, n: int) -> None:
        if what == "sweep":
            self._sweep()
            return
        actor = self._actors[i]
        if what == "deliver":
            if actor.gate.deliver():
                self.log += f"{i} delivered; "
                self._look(i)
        elif actor.over:
            return
        elif what == "kill":
            self._kill(i)
        else:
            while not actor.over and (what == "end" or n > 0):
                n -= 1
                self._step(i)

    def _step(self, i: int) -> None:
        actor = self._actors[i]
        self._watch.begun.setdefault(i, len(self._watch.history))
        step = actor.step
        self.log += f"{i} {step}; "
        actor.go()
        self._look(i, changed=actor.over or step not in _HEADS_ONLY)
        if actor.stalled:
            self._kill(i)
        elif actor.over:
            self.log += f"{i} = {actor.answer} {actor.step}; "
            alone = all(other.over for other in self._actors)
            self._watch.answered(i, actor.answer, self._hits, tampered=actor.gate.tampered > 0, alone=alone)

    def _kill(self, i: int) -> None:
        self._actors[i].kill()
        self.log += f"{i} killed; "
        self._look(i)
        self._watch.begun.setdefault(i, len(self._watch.history))
        self._watch.answered(i, "killed", [], tampered=True, alone=False)

    def _look(self, i: int, *, changed: bool = True) -> None:
        head = self._arena.head(self._id)
        found = self._hits
        if changed or self._stored is None or self._stored[0] != head.version:
            self._stored = head.version, self._arena.stored(head)
            self._hits = self._arena.hits(self._id)
        self._answer(head, [*found, *self._hits])
        self._watch.look(i, head, self._stored[1], self._hits)

    def _answer(self, head: Head, found: Sequence[Hit]) -> None:
        """What the service shows to somebody in no group who searched before the step, or after it, and is answered
        now."""
        tokens = {hit.token for hit in found if PUBLIC in hit.acl}
        shown = self._check.in_force(_NOBODY, [(self._id, token) for token in tokens], _HEADS_S)
        version, access = head.version, head.access
        in_force = version is not None and access is not None and access.allows(_NOBODY.principals)
        right = {(self._id, version.token)} if version is not None and in_force and version.token in tokens else set()
        if shown != right:
            raise Violation(f"SHOWN: the service shows {shown} to everybody, and in force is {version} for {access}")

    def _sweep(self) -> None:
        head = self._arena.head(self._id)
        if not head.open:
            return
        self.log += "sweep; "
        swept = sweep_heads(self._arena.cluster, [head])
        now = self._arena.head(self._id)
        if not swept or now.rev > head.rev + 1:  # a sweep writes the head twice: seize and clear
            self._watch.history.append(now)
        self._look(-1)

    def _tidy(self) -> None:
        """What a sweep leaves when nobody writes any more is exactly what is in force, for all who may read it."""
        for _ in range(_SWEEPS):
            if not self._arena.head(self._id).open:
                break
            self._sweep()
        head = self._arena.head(self._id)
        if head.open:
            raise Violation(f"NO END: after {_SWEEPS} sweeps the head is still open")
        refresh(self._arena.cluster)
        self._look(-1)
        self._exact(head)

    def _exact(self, head: Head) -> None:
        version, access = head.version, head.access
        wanted = set()
        if version is not None and access is not None:
            wanted = {(version.token, n, access.acl) for n in range(version.passages)}
            if version.passages < 2:
                raise Violation(f"LOST: the version in force counts {version.passages} passages")
        found = {(hit.token, hit.position, hit.acl) for hit in self._arena.hits(self._id)}
        if found != wanted:
            raise Violation(f"NATIVE: in the end searches show {found}, and in force is {wanted}")
        for principals in _READERS:
            scope = Scope("writers", principals)
            allowed = wanted if access is not None and access.allows(principals) else set()
            native = {(hit.token, hit.position, hit.acl) for hit in self._arena.hits(self._id, clauses(scope))}
            if native != allowed:
                raise Violation(f"NATIVE: {principals} finds {native} in place of {allowed}")
            shown = self._read(scope)
            if shown != {item[:2] for item in allowed}:
                raise Violation(f"SHOWN: {principals} is shown {shown} in place of {allowed}")

    def _read(self, scope: Scope) -> set[tuple[Any, Any]]:
        try:
            _, passages = get_document(self._arena.cluster, scope, self._id)
        except NotFound:
            return set()
        return {(passage["content_hash"], passage["position"]) for passage in passages}

    def _free(self, plan: Plan) -> Outcome:
        """All at once. Only the answers and the end can be checked, and that nothing in force is ever lost."""
        looks = 0
        while not all(actor.over for actor in self._actors):
            head = self._arena.head(self._id)
            stored, now = self._arena.stored(head), self._arena.head(self._id)
            looks += 1
            if head.version is not None and now.version == head.version and stored < head.version.passages:
                raise Violation(f"LOST: {stored} of {head.version.passages} passages in force exist")
            for actor in self._actors:
                if not actor.over and not actor.events.empty():
                    actor.arrive()
        for i, actor in enumerate(self._actors):
            self.log += f"{i} = {actor.answer}; "
        head = self._settled()
        content = None
        if head.version is not None:
            names = {op.content for op in plan.ops if op.puts} | {"v0"}
            content = next(name for name in names if self._shows(name))
        final = State(content, head.access.acl if head.access is not None else None)
        ops = [(actor.op, actor.answer) for actor in self._actors]
        if not explain(self._start, ops, final):
            raise Violation(f"ORDER: no order of {ops} leads from {self._start} to {final}")
        return Outcome(tuple(actor.answer for actor in self._actors), looks)

    def _settled(self) -> Head:
        for _ in range(_SWEEPS):
            head = self._arena.head(self._id)
            if not head.open:
                break
            sweep_heads(self._arena.cluster, [head])
        head = self._arena.head(self._id)
        refresh(self._arena.cluster)
        self._exact(head)
        return head

    def _shows(self, content: str) -> bool:
        _, passages = get_document(self._arena.cluster, Scope("writers"), self._id)
        return str(passages[0]["text"]).startswith(f"{content} ")
