"""The protocol that heads replaced (fa93137: Writer.write, change_readers, delete_documents), for `--today`.

It looked for other versions, wrote its own, refreshed and deleted all other versions. A version is (operation, content)
here, and position 0 marks it complete; a patch writes the content that it found as a new version.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from tests.protocol.configurations import Configuration, configuration
from tests.protocol.state import (
    PUBLIC,
    DeleteUnchanged,
    Erase,
    Index,
    Item,
    Passage,
    Process,
    State,
    Token,
    Violation,
)
from tests.protocol.steps import Protocol, Ways, change

Document = tuple[int, str]
"""Content and acl."""


def configurations_of_today() -> Iterator[Configuration]:
    """A put beside each of the operations."""
    for other in ("put", "patch-hr", "delete"):
        yield configuration(f"public put {other}", "2")


class Today(Protocol):
    """Steps: read, check, reveal, remove, answer. There is no head and no sweep."""

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration)
        self.twins = frozenset()  # deletes are sorted by the names of the processes

    def may_sweep(self, state: State, process: Process) -> bool:
        """Nothing swept."""
        return False

    def find_violation(self, state: State) -> None:
        """It promised nothing before the end."""

    def step_of(self, item: Item, process: Process) -> str:
        """The step whose bulk has this item."""
        return "write" if isinstance(item, Index) else "remove"

    def read(self, state: State, i: int, process: Process) -> Ways:
        """Refresh, and search for complete versions."""
        state = state._replace(visible=state.stored)
        complete = [passage for passage in state.visible if passage.position == 0]
        newest = max(complete, key=lambda passage: passage.version, default=None)
        verb, named = self.operations[i]
        if verb == "delete":
            yield "refresh", change(state, i, step="remove")
        elif verb == "patch" and newest is None:
            yield "refresh, search: not found", change(state, i, step="end", result="missing")
        else:
            acl = named or (newest.acl if newest else PUBLIC)
            token = (i, newest.token[1] if newest and verb == "patch" else i)
            gone = frozenset(passage.token for passage in complete)
            request = self._items(state, token, acl, range(1, self.configuration.passages))
            state = change(state, i, token=token, acl=acl, gone=gone, request=request, step="check")
            yield f"refresh, search: acl will be {acl}", state

    def _items(self, state: State, token: Token, acl: str, positions: Iterable[int]) -> tuple[Index, ...]:
        written_at = max((passage.version for passage in state.stored), default=0) + 1
        return tuple(Index(token, position, acl, written_at) for position in positions)

    def check(self, state: State, i: int, process: Process) -> Ways:
        """Search for versions that were not there before; if there are none, complete this one."""
        token = _token(process)
        seen = {passage.token for passage in state.visible if passage.position == 0}
        if seen - process.gone - {token}:
            undo = tuple(Erase(token, position) for position in range(self.configuration.passages))
            yield "search: overtaken", change(state, i, step="end", result="refused", request=undo)
        else:
            request = self._items(state, token, process.acl, [0])
            yield "search: no other version", change(state, i, step="reveal", request=request)

    def reveal(self, state: State, i: int, process: Process) -> Ways:
        """Make searches see the new version."""
        yield "refresh", change(state._replace(visible=state.stored), i, step="remove")

    def remove(self, state: State, i: int, process: Process) -> Ways:
        """Delete by query what searches see of other versions."""
        others = sorted(passage for passage in state.visible if passage.token != process.token)
        request = tuple(DeleteUnchanged(passage) for passage in others)
        yield f"delete_by_query finds {len(others)} passages", change(state, i, step="answer", request=request)

    def answer(self, state: State, i: int, process: Process) -> Ways:
        """Refresh and answer."""
        yield "refresh, answer", change(state._replace(visible=state.stored), i, step="end", result="ok")

    def find_violation_at_end(self, state: State) -> Violation | None:
        """The document must be what some order of the successful operations makes of it."""
        have = _documents(state.stored)
        successful = [i for i, process in enumerate(state.processes) if process.result == "ok"]
        allowed = {self._outcome(order) for order in itertools.permutations(successful)}
        if have in allowed:
            return None
        kind = "TWO VERSIONS" if len(have) > 1 else "UNDONE" if have else "LOST"
        if have and not {acl for _, acl in have} <= {acl for documents in allowed for _, acl in documents}:
            kind = "RESTORED"
        orders = sorted(map(sorted, allowed))
        return Violation(kind, f"(content, acl) is {sorted(have)}; an order of what succeeded gives {orders}")

    def _outcome(self, order: Iterable[int]) -> frozenset[Document]:
        document = next(iter(_documents(self.start().stored)), None)
        for i in order:
            verb, named = self.operations[i]
            if verb == "patch":
                document = document and (document[0], named)
            else:
                document = None if verb == "delete" else (i, named or (document[1] if document else PUBLIC))
        return frozenset({document} if document else ())


def _documents(stored: frozenset[Passage]) -> frozenset[Document]:
    return frozenset((passage.token[1], passage.acl) for passage in stored if passage.position == 0)


def _token(process: Process) -> Token:
    if not process.token:
        raise ValueError("a version has a token before it is written")
    return process.token
