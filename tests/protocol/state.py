"""A state of the model: immutable values that compare and hash by content."""

from __future__ import annotations

from typing import Final, NamedTuple

PUBLIC: Final = "public"

Token = tuple[int, int]
"""Names a version: the operation that wrote it, and the revision of its intent. (-1, -1) was there before."""

NO_TOKENS: Final[frozenset[Token]] = frozenset()


class Operation(NamedTuple):
    """What a process is to do. `acl` is what the caller names; empty if the caller names none."""

    verb: str
    """put, patch, delete, sweep or search."""
    acl: str = ""

    def __str__(self) -> str:
        return f"{self.verb}-{self.acl}" if self.acl else self.verb


class Head(NamedTuple):
    """The record of a document that is written by compare-and-set."""

    rev: int
    """Rises by one with each write: stands for `_seq_no`, too."""
    version: Token | None
    """The version in force; None: deleted, or not committed yet."""
    access: str
    pending: frozenset[Token] = NO_TOKENS
    """Attempts that may still be committed."""
    garbage: frozenset[Token] = NO_TOKENS
    """Versions that can never be in force again and may still have passages."""
    access_rev: int = 1
    """Revision of the last patch."""
    unsettled: bool = False
    """Whether passages may still carry an older acl."""
    by: int = -1
    """Operation that made the last patch or delete."""

    @property
    def is_open(self) -> bool:
        """Whether there is something left to do for the sweep."""
        return bool(self.pending or self.garbage or self.unsettled)


class Passage(NamedTuple):
    """A stored passage; `version` is its external version, the revision under which its acl was written."""

    token: Token
    position: int
    acl: str
    version: int


class Effect(NamedTuple):
    """What a write of the head does to the document, for the specification."""

    operation: int
    verb: str
    acl: str
    """The acl that the caller names; empty if the caller names none."""


class WriteHead(NamedTuple):
    """Conditional write of the head."""

    expected_rev: int
    new: Head
    effect: Effect | None


class Index(NamedTuple):
    """Item of a bulk: index with `version_type: external`."""

    token: Token
    position: int
    acl: str
    version: int


class Erase(NamedTuple):
    """Item of a bulk: delete with `version_type: external_gte` and the highest version."""

    token: Token
    position: int


class DeleteUnchanged(NamedTuple):
    """What `delete_by_query` does to a passage that it found: delete it if it is still as it was found."""

    found: Passage


PassageItem = Index | Erase | DeleteUnchanged
Item = WriteHead | PassageItem
Request = tuple[Item, ...]


class Process(NamedTuple):
    """One process that carries out one operation."""

    step: str = "read"
    """The method of the protocol that makes the next step; `end`: there is none."""
    head: Head | None = None
    """The head as last read or written."""
    token: Token | None = None
    """The version that is being written."""
    acl: str = ""
    """What the passages of that version are written with."""
    staged: bool = False
    """Put: its passages are written; the next read of the head decides whether to commit."""
    request: tuple[PassageItem, ...] = ()
    """Rest of the bulk under way; its items come before the step."""
    gone: frozenset[Token] = NO_TOKENS
    """Versions that are being erased; of a reader: those that its search found."""
    retried: bool = False
    """Put: a first attempt was fenced. One retry stands for all."""
    uncertain_rev: int = -1
    """Revision on which a write of the head timed out."""
    replaced: bool = False
    """Put: a version was in force when it committed; sweep: it has begun once."""
    result: str = ""
    """ok, refused (surely without effect), missing, unknown (a write of the head timed out), killed."""


class Violation(NamedTuple):
    """What must never be."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class Durable(NamedTuple):
    """What survives the loss of the head's primary: all as of the last acknowledged write."""

    head: Head | None
    expected_acl: str
    effects: tuple[int, ...]


class State(NamedTuple):
    """Everything that decides what can happen next, and what the specification expects."""

    head: Head | None
    stored: frozenset[Passage]
    tombstones: frozenset[Erase]
    """Passages whose deletion OpenSearch remembers."""
    visible: frozenset[Passage]
    """What searches see."""
    processes: tuple[Process, ...]
    late: tuple[Request, ...]
    """Requests whose senders gave up waiting, still to be applied."""
    expected_acl: str
    """Specification: the acl after all effects in the order of the writes of the head."""
    effects: tuple[int, ...]
    """Specification: by operation, the revision at which it took effect; 0: it did not."""
    durable: Durable
    crashes: int
    """How often a process may still be killed or a primary be lost."""
    delays: int
    """How many requests may still time out."""
    violation: Violation | None = None


What = str | tuple[Item, bool]
"""What a step was: words, or an item and whether OpenSearch accepted it."""


class Label(NamedTuple):
    """Who did what; `process` is None for OpenSearch."""

    process: int | None
    step: str
    what: What
