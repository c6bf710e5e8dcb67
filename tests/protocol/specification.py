"""What the protocol promises. Each violation has a kind in capitals, by which tests and documentation name it."""

from __future__ import annotations

from functools import cache

from tests.protocol.state import PUBLIC, Effect, Head, Operation, Passage, Process, State, Token, Violation


def record_effect(state: State, effect: Effect) -> State:
    """Follow what operations do to the document, in the order in which their heads are stored.

    The acl is the one that the caller names, else the one in force, else public. No operation takes effect twice.
    """
    head, operation, expected = state.head, effect.operation, effect.acl or state.expected_acl or PUBLIC
    if head is None:
        raise ValueError("an effect is recorded after the head was stored")
    violation = state.violation
    if state.effects[operation]:
        violation = Violation("TWICE", "an operation took effect a second time")
    if head.access != expected:
        names = effect.acl or "no acl"
        violation = Violation("RESTORED", f"a {effect.verb} that names {names} turned {expected} into {head.access}")
    effects = (*state.effects[:operation], head.rev, *state.effects[operation + 1 :])
    return state._replace(expected_acl=expected, effects=effects, violation=violation)


def check_answer(state: State, operation: int, result: str) -> State:
    """`ok` only if the operation took effect, `refused` only if it did not."""
    if (result == "ok" and not state.effects[operation]) or (result == "refused" and state.effects[operation]):
        fact = "took effect" if state.effects[operation] else "did not take effect"
        return state._replace(violation=Violation("LIE", f"answered {result}, but the operation {fact}"))
    return state


def check_shown(state: State, shown: frozenset[Token], reader_acl: str) -> State:
    """The service shows only the version in force, and only to those who may read it."""
    in_force = state.head.version if state.head else None
    if shown and (state.expected_acl != reader_acl or shown != {in_force}):
        readers = state.expected_acl or "nobody"
        text = f"the service shows {sorted(shown)} to {reader_acl}; in force is {in_force} for {readers}"
        return state._replace(violation=Violation("SHOWN", text))
    return state


def find_violation(state: State, operations: tuple[Operation, ...], passages: int) -> Violation | None:
    """What must hold in every state. `operations` are those of clients; their processes come first."""
    if state.violation:
        return state.violation
    head = state.head
    if head and head.version:
        if _count(state.stored, head.version) < passages:
            return Violation("LOST", "passages of the version in force do not exist")
        if _count(state.visible, head.version) < passages:
            author = state.processes[head.version[0]] if head.version[0] >= 0 else None
            if author is None or author.replaced or author.result == "ok":
                return Violation("NOT FOUND", "searches do not see the version in force")
    for index, operation in enumerate(operations):
        process = state.processes[index]
        if process.result == "ok":
            for passage in state.visible:
                if _is_outdated(passage, process, operation, state.effects[index]):
                    text = f"{'ABC'[index]} has answered ok, but searches still show {passage.token} for {passage.acl}"
                    return Violation("NATIVE", text)
    if (not head or not head.is_open) and not _is_tidy(head, state.stored, state.visible, passages):
        return Violation("NATIVE", "the head says that all is tidy, but other passages are there")
    return None


def find_violation_at_end(state: State, operations: int) -> Violation | None:
    """What must hold where no process can do anything any more."""
    if any(not process.result for process in state.processes[:operations]) or (state.head and state.head.is_open):
        return Violation("NO END", "an operation hangs, or the sweep has left something behind")
    return None


def _is_outdated(passage: Passage, process: Process, operation: Operation, effect: int) -> bool:
    """Whether a passage was replaced, deleted or closed by an operation that took effect at a later revision."""
    if passage.version >= effect:
        return False
    return passage.acl != operation.acl if operation.verb == "patch" else passage.token != process.token


@cache
def _count(passages: frozenset[Passage], token: Token) -> int:
    return sum(passage.token == token for passage in passages)


@cache
def _is_tidy(head: Head | None, stored: frozenset[Passage], visible: frozenset[Passage], passages: int) -> bool:
    """Whether just the passages in force are stored, with the acl in force, and searches see nothing else."""
    whole = {(head.version, position, head.access) for position in range(passages)} if head and head.version else set()
    return {passage[:3] for passage in stored} == whole and {passage[:3] for passage in visible} <= whole
