"""Access to a document: its access list, up to four restrictions, and changes of them.

`acl` is any-of: a caller can read the document if it has one of the entries. Each restriction (`acl_1` ... `acl_4`) is
also any-of and must be satisfied in addition; an empty one is open. With an empty `acl` only the operator and admins
can read the document.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

PUBLIC = "public"
"""The entry that everybody in a tenant satisfies."""

RESTRICTIONS = ("acl_1", "acl_2", "acl_3", "acl_4")
ACCESS_FIELDS = ("acl", *RESTRICTIONS)

AccessChange = Mapping[str, tuple[str, ...]]
"""Field -> its new entries; other fields stay unchanged."""


@dataclass(frozen=True, slots=True)
class Access:
    """The lists of one document, in the given order, without repetitions."""

    acl: tuple[str, ...] = (PUBLIC,)
    acl_1: tuple[str, ...] = ()
    acl_2: tuple[str, ...] = ()
    acl_3: tuple[str, ...] = ()
    acl_4: tuple[str, ...] = ()

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Access:
        """Create from a stored record; absent restrictions are open, with an absent `acl` nobody has access."""
        return cls(**{name: _entries(fields.get(name)) for name in ACCESS_FIELDS})

    @property
    def restrictions(self) -> tuple[tuple[str, ...], ...]:
        return self.acl_1, self.acl_2, self.acl_3, self.acl_4

    def fields(self) -> dict[str, list[str]]:
        """Return the stored form: `acl` always, restrictions if they are not open."""
        lists = {name: list(getattr(self, name)) for name in ACCESS_FIELDS}
        return {name: entries for name, entries in lists.items() if entries or name == "acl"}

    def changed(self, change: AccessChange) -> Access:
        """Return the lists with the named ones replaced."""
        return replace(self, **{name: _entries(entries) for name, entries in change.items()})

    def allows(self, principals: frozenset[str] | None) -> bool:
        """Return whether a caller with these principals has access; None is the operator or an admin."""
        if principals is None:
            return True
        have = principals | {PUBLIC}
        return not have.isdisjoint(self.acl) and all(
            not entries or not have.isdisjoint(entries) for entries in self.restrictions
        )

    def narrows(self, before: Access) -> bool:
        """Return whether a caller may lose access that `before` gave; True if unknown."""
        restrictions = zip(before.restrictions, self.restrictions, strict=True)
        pairs = [(before.acl, self.acl, False), *((*pair, True) for pair in restrictions)]
        return any(_narrows(old, new, empty_is_open=is_open) for old, new, is_open in pairs)

    def is_equivalent(self, other: Access) -> bool:
        """Return whether both give access to the same callers, whatever the order of the entries."""
        return all(set(getattr(self, name)) == set(getattr(other, name)) for name in ACCESS_FIELDS)

    def digest(self) -> str:
        """Return a digest of the lists, independent of the order of entries: 32 hex digits."""
        lists = [sorted(getattr(self, name)) for name in ACCESS_FIELDS]
        return hashlib.sha256(orjson.dumps(lists)).hexdigest()[:32]


def _narrows(old: Iterable[str], new: Iterable[str], *, empty_is_open: bool) -> bool:
    before, after = frozenset(old), frozenset(new)
    if PUBLIC in after or (empty_is_open and not after):
        return False
    return (empty_is_open and not before) or not before <= after


def _entries(value: Any) -> tuple[str, ...]:
    """Return the entries of a stored field, which holds one value or several."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(dict.fromkeys(value))
