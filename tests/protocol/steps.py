"""The write protocol as steps. A method that is named like a step yields all ways in which that step can go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tests.protocol.configurations import Configuration
from tests.protocol.opensearch import Protections, apply_item, spontaneous_moves
from tests.protocol.specification import (
    check_answer,
    check_shown,
    find_violation,
    find_violation_at_end,
    record_effect,
)
from tests.protocol.state import (
    NO_TOKENS,
    PUBLIC,
    Durable,
    Effect,
    Erase,
    Head,
    Index,
    Item,
    Label,
    Operation,
    Passage,
    Process,
    State,
    Token,
    Violation,
    What,
    WriteHead,
)

STEPS: Final = (
    "read",
    "intent",
    "stage",
    "reveal",
    "commit",
    "erase",
    "settle",
    "hide",
    "clear",
    "seize",
    "confirm",
)
"""The names that `app/ingest/protocol.py` gives its steps. The model adds the service's: `search` and `check`."""

SAFEGUARDS: Final = {
    "cas": "the head is written without if_seq_no",
    "fence": "a patch or a commit leaves other attempts in `pending`",
    "fence-before-erase": "the sweep erases an old attempt's passages without taking it out of `pending` first",
    "fresh-token": "an attempt that is repeated keeps its token",
    "erase-by-list": "a writer erases every version but its own, instead of those in `garbage`",
    "tombstones": "erasing is a plain delete: a late or paused write of the same id succeeds",
    "versions": "passages are rewritten with a new acl whatever their version",
    "refresh-before-commit": "the head is switched before searches can see the new passages",
    "refresh-before-answer": "success is answered, and `garbage` cleared, before searches have stopped to see it",
    "refresh-before-settle": "a patch rewrites only the passages that searches happen to see",
    "confirm": "a write of the head that timed out is relied on when a GET shows it, without an acknowledged one",
    "tidy-before-unchanged": "a patch that finds its acl in force answers at once, though the head is open",
    "unknown": "an operation whose write of the head timed out answers `refused` where it can't tell",
    "head-check": "the service shows what the search found, without asking for the head",
}
"""Name, and what the protocol does without it."""

_WRITES_OF_THE_HEAD: Final = frozenset({"intent", "commit", "seize", "confirm"})

_FRESH: Final = Process()
_PROCESSES: Final = State._fields.index("processes")

Ways = Iterator[tuple[What, State]]


class Protocol:
    """The protocol in one configuration, perhaps with safeguards removed."""

    def __init__(self, configuration: Configuration, without: frozenset[str] = frozenset()) -> None:
        if unknown := without - SAFEGUARDS.keys():
            raise ValueError(f"no such safeguard: {', '.join(sorted(unknown))}; there are {', '.join(SAFEGUARDS)}")
        self.configuration = configuration
        self.without = without
        self.protections = Protections("cas" not in without, "tombstones" not in without, "versions" not in without)
        self.clients = len(configuration.operations)
        reader = (Operation("search"),) if configuration.reader else ()
        self.operations = (*configuration.operations, Operation("sweep"), *reader)
        self.twins = frozenset(i for i in range(1, self.clients) if self.operations[i] == self.operations[i - 1])
        """Processes that do the same as the one before. They may swap names, so that one begins first."""

    def start(self) -> State:
        """The state before the first step."""
        acl, base = self.configuration.acl, (-1, -1)
        head = Head(1, base, acl) if acl else None
        passages = frozenset(Passage(base, n, acl, 1) for n in range(self.configuration.passages) if acl)
        effects = (0,) * self.clients
        return State(
            head=head,
            stored=passages,
            tombstones=frozenset(),
            visible=passages,
            processes=(_FRESH,) * len(self.operations),
            late=(),
            expected_acl=acl,
            effects=effects,
            durable=Durable(head, acl, effects),
            crashes=self.configuration.crashes,
            delays=self.configuration.delays,
        )

    def find_violation(self, state: State) -> Violation | None:
        """What must hold in every state."""
        return find_violation(state, self.configuration.operations, self.configuration.passages)

    def find_violation_at_end(self, state: State) -> Violation | None:
        """What must hold where no process can go on."""
        return find_violation_at_end(state, self.clients)

    # what can come next

    def moves(self, state: State) -> Iterator[tuple[Label, State]]:
        """All that can happen next."""
        yield from spontaneous_moves(state, self.protections, forgets=self.configuration.forgets)
        for i, process in enumerate(state.processes):
            if process.step == "end" and not process.request:
                continue
            if self.operations[i].verb == "sweep" and not self.may_sweep(state, process):
                continue
            if i in self.twins and process == _FRESH and state.processes[i - 1] == _FRESH:
                continue
            if state.crashes and self._can_be_killed(process, self.operations[i]):
                yield Label(i, "", "KILLED"), self._kill(state, i)
            if process.request:
                item, *rest = process.request
                after, accepted = apply_item(state, item, self.protections)
                step = self.step_of(item, process)
                yield Label(i, step, (item, accepted)), change(after, i, request=tuple(rest))
                if state.delays:
                    late = (*state.late, process.request)
                    label = Label(i, step, "the bulk times out and is sent again")
                    yield label, state._replace(late=late, delays=state.delays - 1)
            else:
                yield from self._steps(state, i, process)

    def may_sweep(self, state: State, process: Process) -> bool:
        """Whether the sweep may act: once early, if so configured; after all operations until nothing is left to do."""
        if process.step != "read":
            return True
        if not state.head or not state.head.is_open:
            return False
        early = self.configuration.early_sweep and not process.replaced
        return early or all(client.result for client in state.processes[: self.clients])

    def _can_be_killed(self, process: Process, operation: Operation) -> bool:
        begun = process.step != "read" or process.staged or process.retried or process.uncertain_rev >= 0
        return begun and operation.verb != "search"

    def _kill(self, state: State, i: int) -> State:
        state = state._replace(crashes=state.crashes - 1)
        if self.operations[i].verb == "sweep":  # another one begins
            return change(state, i, step="read", head=None, request=(), gone=NO_TOKENS)
        return change(state, i, step="end", request=(), result="killed")

    def _steps(self, state: State, i: int, process: Process) -> Iterator[tuple[Label, State]]:
        """A GET and the conditional write after it count as one step: if the write fails, the GET was for nothing."""
        for what, after in getattr(self, process.step)(state, i, process):
            step = after.processes[i].step
            if step in _WRITES_OF_THE_HEAD and self.protections.compares:
                for outcome, written in self._write(after, i, after.processes[i]):
                    yield Label(i, step, outcome), written
            else:
                yield Label(i, process.step, what), after

    def step_of(self, item: Item, process: Process) -> str:
        """The step whose bulk has this item."""
        if isinstance(item, Index):
            return "stage" if item.token == process.token and item.version == item.token[1] else "settle"
        return "erase"

    # steps of put, patch, delete and sweep

    def read(self, state: State, i: int, process: Process) -> Ways:
        """A realtime GET of the head: the first step of every operation, repeated after a conflict or a timeout."""
        head, verb = state.head, self.operations[i].verb
        if verb == "search":
            yield from self.search(state, i, process)
        elif verb == "sweep":
            yield "get", change(state, i, step="seize", head=head, replaced=True)
        elif verb == "put" and process.staged:
            yield self._read_staged(state, i, process)
        elif verb == "put":  # an intent that timed out may have been stored: it is left to be fenced by the commit
            kept = process.token if "fresh-token" in self.without else None
            token = kept or (i, head.rev + 1 if head else 1)
            yield "get", change(state, i, head=head, step="intent", token=token, uncertain_rev=-1)
        elif process.uncertain_rev >= 0 and head and head.by == i:
            yield "get: it was stored", self._confirm(state, i, head)
        elif process.uncertain_rev >= 0 and head and head.rev != process.uncertain_rev:
            yield "get: can't tell", self._answer(state, i, "unknown")
        elif not head or not head.version:
            yield "get: not found", self._answer(state, i, "missing")
        elif self._is_in_force(head, self.operations[i]):
            state = record_effect(state, Effect(i, *self.operations[i]))
            yield "get: in force already", self._answer(state, i, "ok")
        else:
            yield "get", change(state, i, head=head, step="commit")

    def _is_in_force(self, head: Head, operation: Operation) -> bool:
        """Whether a patch has nothing to do."""
        may_be_open = "tidy-before-unchanged" in self.without
        return operation.verb == "patch" and operation.acl == head.access and (may_be_open or not head.is_open)

    def _read_staged(self, state: State, i: int, process: Process) -> tuple[What, State]:
        """A put whose passages are written: may it still commit, has it, or was it fenced?"""
        head = state.head
        if head and process.token in head.pending:
            return "get: still pending", change(state, i, head=head, step="commit")
        if head and head.version == process.token:
            return "get: it was committed", self._confirm(state, i, head)
        if process.uncertain_rev >= 0:
            return "get: fenced, can't tell", self._answer(state, i, "unknown")
        patched = head is not None and process.token is not None and head.access_rev > process.token[1]
        if process.retried or (self.operations[i].acl and patched):
            return "get: fenced, refused", self._answer(state, i, "refused")
        return "get: fenced, again", change(state, i, step="read", staged=False, retried=True)

    def _write(self, state: State, i: int, process: Process) -> Ways:
        """Write the head if it is still the one that was read. After a conflict or a timeout: read again."""
        head = process.head or Head(0, None, "")
        new, effect = self._next_head(head, i, process)
        if process.step == "commit" and self.operations[i].verb == "put":
            state = change(state, i, replaced=bool(head.version))
        item = WriteHead(head.rev, new, effect)
        after, accepted = apply_item(state, item, self.protections, acknowledged=True)
        if accepted:
            after = change(after, i, head=after.head, uncertain_rev=-1)
            yield (item, True), self.stage(after, i) if process.step == "intent" else self.erase(after, i)
        else:
            yield (item, False), change(state, i, step="read")
        if state.delays:
            late = (*state.late, (item,))
            after = change(state, i, step="read", uncertain_rev=head.rev)
            yield "the write of the head times out", after._replace(late=late, delays=state.delays - 1)

    intent = commit = seize = confirm = _write

    def _next_head(self, head: Head, i: int, process: Process) -> tuple[Head, Effect | None]:
        """What a process makes of the head, and what that does to the document."""
        operation, token = self.operations[i], process.token
        if process.step == "intent" and token:  # from now on this attempt may be committed
            return head._replace(pending=head.pending | {token}), None
        if process.step == "confirm":  # unchanged
            return head, None
        if process.step == "seize":  # attempts that have not moved for the length of a lease are fenced
            if "fence-before-erase" in self.without:
                return head, None
            return head._replace(pending=NO_TOKENS, garbage=head.garbage | head.pending), None
        replaced = frozenset({head.version} if head.version else ())
        fenced = NO_TOKENS if "fence" in self.without else head.pending - {token}
        pending, garbage = head.pending - fenced - {token}, head.garbage | fenced
        effect = Effect(i, *operation)
        if operation.verb == "put":
            committed = head._replace(version=token, access=process.acl, unsettled=False)
            return committed._replace(pending=pending, garbage=garbage | replaced), effect
        # patch and delete write the head first, so that the service obeys at once
        fencing = head._replace(pending=pending, garbage=garbage, by=i)
        if operation.verb == "delete":
            return fencing._replace(version=None, garbage=garbage | replaced, unsettled=False), effect
        return fencing._replace(access=operation.acl, access_rev=head.rev + 1, unsettled=True), effect

    def _confirm(self, state: State, i: int, head: Head) -> State:
        """What a GET shows may be lost with its primary; not what is acknowledged on top of it."""
        if "confirm" not in self.without:
            return change(state, i, head=head, uncertain_rev=-1, step="confirm")
        return self.erase(change(state, i, head=head, uncertain_rev=-1), i)

    def stage(self, state: State, i: int) -> State:
        """Write the passages, with the caller's acl or the intent's; a later change of the acl fences the attempt."""
        process = state.processes[i]
        if not process.token or not process.head:
            raise ValueError("a put stages after its intent")
        acl = self.operations[i].acl or process.head.access or PUBLIC
        request = tuple(
            Index(process.token, position, acl, process.token[1]) for position in range(self.configuration.passages)
        )
        reveals = process.head.version and "refresh-before-commit" not in self.without
        return change(state, i, acl=acl, request=request, staged=True, step="reveal" if reveals else "read")

    def reveal(self, state: State, i: int, process: Process) -> Ways:
        """Make searches see the new version beside the one in force."""
        yield "refresh", change(state._replace(visible=state.stored), i, step="read")

    def erase(self, state: State, i: int, gone: frozenset[Token] | None = None) -> State:
        """Delete the passages of versions that can never be in force again."""
        head, verb = state.processes[i].head, self.operations[i].verb
        if not head:
            raise ValueError("passages are erased after a write of the head")
        if gone is None and "erase-by-list" in self.without:
            return change(state, i, step="erase_others")
        if gone is None:
            unfenced = verb == "sweep" and "fence-before-erase" in self.without
            gone = head.garbage | head.pending if unfenced else head.garbage
        request = tuple(
            Erase(token, n) for token in sorted(gone, key=_by_intent) for n in range(self.configuration.passages)
        )
        return change(
            state, i, gone=gone, request=request, step="settle" if head.unsettled and head.version else "hide"
        )

    def erase_others(self, state: State, i: int, process: Process) -> Ways:
        """Without `erase-by-list`."""
        head = process.head
        if head:
            others = {passage.token for passage in state.stored if passage.token != head.version}
            yield "refresh, search for others", self.erase(state, i, head.garbage | others)

    def settle(self, state: State, i: int, process: Process) -> Ways:
        """Rewrite the passages with the acl of the head. The copy that is read may be old: only its acl changes."""
        head = process.head
        if not head or not head.version:
            raise ValueError("only passages of a version in force are settled")
        if "refresh-before-settle" not in self.without:
            state = state._replace(visible=state.stored)
        seen = sorted({passage.position for passage in state.visible if passage.token == head.version})
        request = tuple(Index(head.version, position, head.access, head.access_rev) for position in seen)
        yield "refresh, read the passages", change(state, i, request=request, step="hide")

    def hide(self, state: State, i: int, process: Process) -> Ways:
        """Make searches stop to see what was erased or closed, and answer."""
        if "refresh-before-answer" not in self.without:
            state = state._replace(visible=state.stored)
        if self.operations[i].verb == "sweep":
            yield "refresh", change(state, i, step="clear")
        else:
            yield "refresh, answer", self._answer(state, i, "ok", step="clear")

    def clear(self, state: State, i: int, process: Process) -> Ways:
        """Note in the head what is gone. Read and conditional write, repeated on conflict, count as one step."""
        head, mine = state.head, process.head
        if not head or not mine:
            raise ValueError("a head is never removed")
        settled = mine.unsettled and head.access_rev == mine.access_rev and head.version == mine.version
        new = head._replace(garbage=head.garbage - process.gone, unsettled=head.unsettled and not settled)
        after = change(state, i, step="read" if self.operations[i].verb == "sweep" else "end", head=None)
        if new != head:
            after, _ = apply_item(after, WriteHead(head.rev, new, None), self.protections, acknowledged=True)
        yield "clear garbage", after

    def _answer(self, state: State, i: int, result: str, step: str = "end") -> State:
        if result == "unknown" and "unknown" in self.without:
            result = "refused"
        return change(check_answer(state, i, result), i, result=result, step=step)

    # the service's reader, who may read public documents only

    def search(self, state: State, i: int, process: Process) -> Ways:
        """Find versions of the document."""
        found = frozenset(passage.token for passage in state.visible if passage.acl == PUBLIC)
        yield "search", change(state, i, step="check", gone=found)

    def check(self, state: State, i: int, process: Process) -> Ways:
        """Show what the head allows: one realtime mget of the heads of the page."""
        head, shown = state.head, process.gone
        if "head-check" not in self.without:
            readable = head and head.access == PUBLIC
            shown = frozenset(token for token in shown if readable and head and token == head.version)
        after = check_shown(state, shown, PUBLIC)
        yield f"get: shows {sorted(shown)}", change(after, i, step="end", result="ok", gone=NO_TOKENS)


def _by_intent(token: Token) -> int:
    """An order that does not depend on the names of the processes. A head never holds two tokens of one revision."""
    return token[1]


def change(state: State, i: int, **changes: Any) -> State:
    """The state with fields of a process changed; `_make`, since half of all time is spent here."""
    processes = state.processes
    changed = processes[i]._replace(**changes)
    return State._make((*state[:_PROCESSES], (*processes[:i], changed, *processes[i + 1 :]), *state[_PROCESSES + 1 :]))
