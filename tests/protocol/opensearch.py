"""What OpenSearch does: it applies the items of requests one by one, and refreshes, forgets and loses at any moment.

The functions on sets of passages are cached: few distinct sets occur in very many states.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from tests.protocol.specification import record_effect
from tests.protocol.state import DeleteUnchanged, Durable, Erase, Index, Item, Label, Passage, State, WriteHead

Passages = frozenset[Passage]


class Protections(NamedTuple):
    """What the requests of the protocol ask OpenSearch to check; each is a safeguard."""

    compares: bool = True
    """The head is written with `if_seq_no`."""
    tombstones: bool = True
    """Passages are deleted with an external version that OpenSearch remembers."""
    versions: bool = True
    """Passages are indexed with an external version, whatever their acl."""


def apply_item(state: State, item: Item, protections: Protections, *, acknowledged: bool = False) -> tuple[State, bool]:
    """Apply one item of a request as a primary shard does; the second value says whether it was accepted."""
    if isinstance(item, WriteHead):
        rev = state.head.rev if state.head else 0
        if rev != item.expected_rev and protections.compares:
            return state, False
        state = state._replace(head=item.new._replace(rev=rev + 1))
        if item.effect:
            state = record_effect(state, item.effect)
        if acknowledged:
            state = state._replace(durable=Durable(state.head, state.expected_acl, state.effects))
        return state, True
    stored, tombstones, accepted = _apply_to_passages(state.stored, state.tombstones, item, protections)
    if stored is state.stored and tombstones is state.tombstones:
        return state, accepted
    return state._replace(stored=stored, tombstones=tombstones), accepted


@cache
def _apply_to_passages(
    stored: Passages, tombstones: frozenset[Erase], item: Index | Erase | DeleteUnchanged, protections: Protections
) -> tuple[Passages, frozenset[Erase], bool]:
    if isinstance(item, DeleteUnchanged):
        return stored - {item.found}, tombstones, item.found in stored
    place = Erase(item.token, item.position)
    old = next((passage for passage in stored if passage[:2] == place), None)
    rest = stored - {old} if old else stored
    if isinstance(item, Erase):
        return rest, tombstones | {place} if protections.tombstones else tombstones, True
    if place in tombstones:
        return stored, tombstones, False
    if old and old.version >= item.version and (protections.versions or old.acl == item.acl):
        return stored, tombstones, False
    return rest | {Passage(*item)}, tombstones, True


@cache
def refreshes(visible: Passages, stored: Passages) -> tuple[tuple[int, Passages], ...]:
    """The shards whose refresh would show something new, and what searches see after it."""
    return tuple(
        (
            shard,
            frozenset(passage for passage in visible if passage.position != shard)
            | frozenset(passage for passage in stored if passage.position == shard),
        )
        for shard in sorted({passage.position for passage in visible ^ stored})
    )


def spontaneous_moves(state: State, protections: Protections, *, forgets: bool) -> Iterator[tuple[Label, State]]:
    """What may happen without a process that does it."""
    if state.visible is not state.stored:
        for shard, visible in refreshes(state.visible, state.stored):
            yield Label(None, "", f"refresh of shard {shard}"), state._replace(visible=visible)
    for place, (item, *rest) in enumerate(state.late):
        late = (*state.late[:place], *((tuple(rest),) if rest else ()), *state.late[place + 1 :])
        after, accepted = apply_item(state._replace(late=late), item, protections)
        yield Label(None, "", (item, accepted)), after
    durable = state.durable
    if state.crashes and state.head != durable.head:
        lost = "the primary shard is lost, and with it the head that was not acknowledged"
        yield (
            Label(None, "", lost),
            state._replace(
                head=durable.head,
                expected_acl=durable.expected_acl,
                effects=durable.effects,
                crashes=state.crashes - 1,
            ),
        )
    if forgets and state.tombstones and state.late:
        yield Label(None, "", "tombstones are forgotten"), state._replace(tombstones=frozenset())
