"""What each caller may see, told apart from the service: plain sets, no code of the service's own.

Every version of every document carries canaries: made-up words that stand nowhere else. A canary in an answer to
somebody who sees no version that holds it is a leak, whatever way it took.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

PUBLIC = "public"
RESTRICTIONS = ("acl_1", "acl_2", "acl_3", "acl_4")
OPEN = (frozenset[str](),) * 4
"""The restrictions of a document that has none."""
_NOBODY: dict[str, Iterable[str]] = dict.fromkeys(("acl", *RESTRICTIONS), ())
_OPEN = {**_NOBODY, "acl": (PUBLIC,)}
CANARY = re.compile(r"zq[bcfhjkmnpqrtvwx]{10}|zk-\d{9}", re.IGNORECASE)
"""Words without vowels, which no stemmer changes, and identifiers."""
_LETTERS = "bcfhjkmnpqrtvwx"

LOOK_ALIKES = (
    ("hr", "HR", "\uff28\uff32"),  # the last in full width
    ("hr", "h\u200br", "hr\u00a0"),  # a zero-width space in it, a space after it
    ("\u00e9quipe", "e\u0301quipe", "\u00c9quipe"),  # one code point, two that look the same, a capital
    ("stra\u00dfe", "strasse", "STRASSE"),
    ("\u0130stanbul", "istanbul", "i\u0307stanbul"),
    ("\u0441rew", "crew", "Crew "),  # the first letter is Cyrillic
    ("a,b", "a", "*"),
    ('"a"', "a", "user"),
)
"""Groups that some system somewhere takes for each other; here no two are the same."""


@dataclass(frozen=True)
class Caller:
    """Somebody who asks. `principals` None: an admin, who sees the whole tenant."""

    name: str
    tenant: str
    principals: frozenset[str] | None
    roles: frozenset[str]
    token: str = field(repr=False, compare=False)
    key_id: str | None = None

    def may(self, role: str) -> bool:
        return role in self.roles or "admin" in self.roles


@dataclass(frozen=True)
class Version:
    """One version of a document, as it was written; equal ones are one."""

    tenant: str
    document_id: str
    acl: frozenset[str]
    title: str
    text: str
    """Of a JSON document its text, of an upload the whole file."""
    source_id: str
    uri: str
    tags: tuple[str, ...]
    timestamp: str | None
    upload: bool
    restrictions: tuple[frozenset[str], ...] = OPEN

    @property
    def canaries(self) -> frozenset[str]:
        said = " ".join((self.document_id, self.title, self.text, self.source_id, self.uri, *self.tags))
        return canaries_in(said)

    def seen_by(self, caller: Caller) -> bool:
        if self.tenant != caller.tenant:
            return False
        if caller.principals is None:
            return True
        have = caller.principals | {PUBLIC}
        return bool(self.acl & have) and all(not names or names & have for names in self.restrictions)

    def changed(self, lists: Mapping[str, Iterable[str]]) -> Version:
        """With these lists of readers in the place of its own."""
        restrictions = [
            frozenset(lists.get(name, own)) for name, own in zip(RESTRICTIONS, self.restrictions, strict=True)
        ]
        return replace(self, acl=frozenset(lists.get("acl", self.acl)), restrictions=tuple(restrictions))

    def lists(self, named: Collection[str]) -> dict[str, frozenset[str]]:
        """Its lists of readers of these names."""
        own = {"acl": self.acl, **dict(zip(RESTRICTIONS, self.restrictions, strict=True))}
        return {name: own[name] for name in named}


@dataclass(frozen=True)
class Stored:
    """A passage as it lies in the store, and the version that it is of."""

    id: str
    token: str
    version: Version
    title: str
    heading: str
    text: str
    source_type: str
    words: frozenset[str]


def canaries_in(text: str) -> frozenset[str]:
    """The canaries in a text, in lower case."""
    return frozenset(found.lower() for found in CANARY.findall(text))


class Canaries:
    """Makes canaries, each once; the same for the same salt."""

    def __init__(self, salt: str) -> None:
        self._salt = salt
        self._count = 0

    def _number(self) -> int:
        self._count += 1
        return int.from_bytes(hashlib.sha256(f"{self._salt}:{self._count}".encode()).digest()[:8], "big")

    def word(self) -> str:
        """A word of twelve letters."""
        number, letters = self._number(), []
        for _ in range(10):
            number, index = divmod(number, len(_LETTERS))
            letters.append(_LETTERS[index])
        return "zq" + "".join(letters)

    def code(self) -> str:
        """An identifier, as manuals have them."""
        return f"ZK-{self._number() % 10**9:09d}"


@dataclass
class Head:
    """A document of an id: the first one, or the neighbour of writers who could not see the others."""

    twin: object = ""
    """Whose neighbour it is; empty for the first."""
    last: Version | None = None
    """What was written last; its readers count also while it is deleted."""
    live: bool = False

    def readable(self, caller: Caller) -> bool:
        return self.last is None or self.last.seen_by(caller)


class Oracle:
    """All documents that there are, and what writes make of them."""

    def __init__(self) -> None:
        self.heads: dict[tuple[str, str], list[Head]] = {}
        """By tenant and document id, the first one first."""
        self.passages: dict[str, Stored] = {}
        self.known_ids: set[str] = set()
        """Of all passages that there ever were, in this example."""

    @property
    def versions(self) -> list[Version]:
        """All that are in force."""
        heads = [head for heads in self.heads.values() for head in heads]
        return [head.last for head in heads if head.live and head.last is not None]

    def visible(self, caller: Caller) -> list[Version]:
        return [version for version in self.versions if version.seen_by(caller)]

    def hidden(self, caller: Caller) -> list[Version]:
        return [version for version in self.versions if not version.seen_by(caller)]

    def passages_for(self, caller: Caller) -> list[Stored]:
        return [passage for passage in self.passages.values() if passage.version.seen_by(caller)]

    def of_id(self, caller: Caller, document_id: str) -> list[Version]:
        """What the caller sees under an id, first what it is shown."""
        return [head.last for head in self._live(caller, document_id) if head.last is not None]

    def post(self, caller: Caller, given: Version, *, named: Collection[str]) -> str:
        """The status that must come back, if the write names the lists `named`."""
        head = self._target(caller, given)
        hidden = not head.readable(caller)  # its own writer can't see it, and is not told that it is there
        lists = given.lists(named)
        before = head.last
        if before is not None and head.live and before.changed(_NOBODY) == given.changed(_NOBODY):
            head.last = before.changed(lists)
            return "created" if hidden else "unchanged" if head.last == before else "updated"
        was_live, head.live = head.live, True
        kept = before if before is not None else given.changed(_OPEN)
        head.last = given.changed({**kept.lists(("acl", *RESTRICTIONS)), **lists})
        return "updated" if was_live and not hidden else "created"

    def patch(
        self, caller: Caller, document_id: str, change: Mapping[str, Iterable[str]]
    ) -> tuple[str, Version] | None:
        changed = False
        heads = self._live(caller, document_id)
        for head in heads:
            assert head.last is not None
            before, head.last = head.last, head.last.changed(change)
            changed |= head.last != before
        if not heads or heads[0].last is None:
            return None
        return ("updated" if changed else "unchanged"), heads[0].last

    def delete(self, caller: Caller, document_id: str) -> bool:
        heads = self._live(caller, document_id)
        for head in heads:
            head.live = False
        return bool(heads)

    def _live(self, caller: Caller, document_id: str) -> list[Head]:
        heads = self.heads.get((caller.tenant, document_id), [])
        return [head for head in heads if head.live and head.readable(caller)]

    def _target(self, caller: Caller, given: Version) -> Head:
        heads = self.heads.setdefault((caller.tenant, given.document_id), [Head()])
        if heads[0].readable(caller):
            return heads[0]
        if live := self._live(caller, given.document_id):
            return live[0]
        subject = caller.key_id or caller.name
        own = next((head for head in heads if head.twin == subject), Head(subject))
        if own not in heads:
            heads.append(own)
        return own

    def take(
        self, passages: Iterable[tuple[str, str, str, tuple[frozenset[str], ...], str, str, str, str]], tenant: str
    ) -> None:
        """Learn what lies in the store for a tenant, which must be exactly the versions that there should be.

        Args:
            passages: id, document id, version's name, ACL and restrictions, title, heading, text, source type.
            tenant: whose.
        """
        # two writers who could not see each other may have written the same
        mine = list(dict.fromkeys(version for version in self.versions if version.tenant == tenant))
        self.passages = {key: item for key, item in self.passages.items() if item.version.tenant != tenant}
        named: dict[str, Version] = {}
        for key, document_id, content_hash, lists, title, heading, text, source_type in passages:
            held = canaries_in(f"{title} {heading} {text}")
            fitting = [
                version
                for version in mine
                if (version.document_id, version.acl, *version.restrictions) == (document_id, *lists)
                and held <= version.canaries
            ]
            assert len(fitting) == 1, f"the store holds a passage of {document_id!r} for {lists} out of nowhere"
            assert named.setdefault(content_hash, fitting[0]) == fitting[0]
            words = frozenset(re.findall(r"[a-z0-9-]+", f"{title} {heading} {text}".lower()))
            self.passages[key] = Stored(key, content_hash, fitting[0], title, heading, text, source_type, words)
            self.known_ids.add(key)
        order = {
            key: (item.version.document_id, item.text, sorted(item.version.acl)) for key, item in self.passages.items()
        }
        self.passages = {key: self.passages[key] for key in sorted(self.passages, key=order.__getitem__)}
        missing = set(mine) - set(named.values())
        assert not missing, f"the store lacks {[(item.document_id, sorted(item.acl)) for item in missing]}"


def typo(word: str) -> str:
    """The word with two letters in its middle in the wrong order, or one doubled where they are the same."""
    first, second = word[5], word[6]
    return word[:5] + (second + first if first != second else first + first + first) + word[7:]


def each_string(value: object) -> Iterator[str]:
    """All strings of a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from each_string(item)
    elif isinstance(value, list):
        for item in value:
            yield from each_string(item)
