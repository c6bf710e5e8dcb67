"""Which of the passages that a search found may be shown: those of the version that their document's head names.

Searches see versions that are being written, were replaced or deleted, and access lists that were changed a moment ago;
heads are read as they are. A twin, the neighbour of a document by a writer who can't see it, gives way to the document
where the caller may read that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from app.store.client import Cluster
from app.store.filters import Scope
from app.store.heads import Head, read_heads, twin_of

Name = tuple[str, str]
"""A document's id, and the twin (empty: the document's own head)."""
VersionName = tuple[str, str]
"""A document's id, and a version's token."""


class HeadCheck:
    """Reads heads for those who show passages. Thread-safe."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def read(self, heads: Heads, wanted: Iterable[Name], timeout_s: float) -> None:
        """Have `wanted` in `heads`: one request, realtime; none where they are there.

        Raises:
            StoreNotReady: there is no index of heads.
            StoreUnavailable, StoreError.
        """
        missing = heads.missing(wanted)
        if missing:
            asked = [Head(heads.scope.tenant, document_id, twin) for document_id, twin in missing]
            heads.add(read_heads(self._cluster, asked, timeout_s=timeout_s).values())

    def in_force(self, scope: Scope, versions: Iterable[VersionName], timeout_s: float) -> set[VersionName]:
        """Those of `versions` whose passages may be shown to `scope` now. Raises as `read`."""
        named = list(dict.fromkeys(versions))
        heads = Heads(scope)
        self.read(heads, heads_of(named), timeout_s)
        return {version for version in named if heads.shows(*version)}


@dataclass(slots=True)
class Heads:
    """The heads that one answer is checked against, each read once, so that it never shows two versions of a document.

    `lost` names those whose version in force is another than the one that was found.
    """

    scope: Scope
    _found: dict[Name, Head] = field(default_factory=dict)
    _shown: dict[str, str] = field(default_factory=dict)
    """Document id -> the token that is shown."""
    _known: dict[Name, str] = field(default_factory=dict)
    """The tokens that were in force before the present search began."""
    lost: set[Name] = field(default_factory=set)

    def missing(self, wanted: Iterable[Name]) -> list[Name]:
        """Those that were not read yet, each once."""
        return [name for name in dict.fromkeys(wanted) if name not in self._found]

    def add(self, heads: Iterable[Head]) -> None:
        self._found |= {(head.document_id, head.twin): head for head in heads}

    def shows(self, document_id: str, token: str) -> bool:
        """Whether passages of a version may be shown; its heads (`heads_of`) must have been read.

        Of two twins of a document it is the first one that is asked for.
        """
        name = document_id, twin_of(token)
        if name[1] and self._live(document_id, ""):
            return False
        head = self._live(*name)
        if head is None or head.version is None:
            return False
        if head.version.token != token:
            # an attempt that is not in force yet hides nothing: the version that is can be found beside it
            if all(version.token != token for version in head.pending):
                self.lost.add(name)
            return False
        return self._shown.setdefault(document_id, token) == token

    def twins(self, document_ids: Iterable[str]) -> list[Name]:
        """The names of the twins of documents whose own heads were read."""
        return [(key, twin) for key in document_ids for twin in self._found[key, ""].twins]

    def replaced(self, documents: Iterable[Name]) -> bool:
        """Whether one of these, of which passages are lost, has a version in force that this search may have missed.

        Not where the document is deleted or closed to the caller, or shown after all; nor where the version was in
        force before the search began: then it was searched, and did not rank.
        """
        for document_id, twin in documents:
            head = self._live(document_id, twin)
            if head is None or head.version is None or document_id in self._shown:
                continue
            if self._known.get((document_id, twin)) != head.version.token:
                return True
        return False

    def begin_again(self) -> None:
        """Forget what was read, but which versions were in force: the next search begins after that."""
        self._known |= {name: head.version.token for name, head in self._found.items() if head.version is not None}
        self._found, self._shown, self.lost = {}, {}, set()

    def _live(self, document_id: str, twin: str) -> Head | None:
        """The head, if it has a version in force that the scope may read."""
        head = self._found[document_id, twin]
        return head if head.version is not None and head.readable(self.scope.principals) else None


def heads_of(versions: Iterable[VersionName]) -> list[Name]:
    """The heads that say whether versions may be shown: the document's own, and a twin's."""
    return [name for document_id, token in versions for name in ((document_id, ""), (document_id, twin_of(token)))]
