"""Visibility check: only passages of the version that their document's head names are shown.

Searches see versions that are being written, were replaced or deleted, and outdated access lists; heads are read in
real time. A twin, the neighbour of a document by a writer who can't see it, gives way to the document if the caller can
read that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from app.store.client import Cluster
from app.store.filters import Scope
from app.store.heads import SHOWING_TIMEOUT_S, Head, read_heads, twin_of

Name = tuple[str, str]
"""A document's id, and the twin (empty: the document's own head)."""
VersionName = tuple[str, str]
"""A document's id, and the token of a version."""


class HeadCheck:
    """Reads heads for checks of passages. Thread-safe."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def fetch(self, scope: Scope, names: Iterable[Name], timeout_s: float) -> Collection[Head]:
        """Return the heads of `names`: one real-time request, for which at most 5 s of `timeout_s` are waited.

        Raises:
            StoreNotReady: the index of heads is missing.
            StoreUnavailable, StoreError.
        """
        asked = [Head(scope.tenant, document_id, twin) for document_id, twin in names]
        return read_heads(self._cluster, asked, timeout_s=min(timeout_s, SHOWING_TIMEOUT_S)).values()

    def in_force(self, scope: Scope, versions: Iterable[VersionName], timeout_s: float) -> set[VersionName]:
        """Return those of `versions` whose passages `scope` can see now. Raises as `fetch`."""
        named = list(dict.fromkeys(versions))
        heads = Heads(scope)
        if missing := heads.missing(heads_of(named)):
            heads.add(self.fetch(scope, missing, timeout_s))
        return {version for version in named if heads.shows(*version)}


@dataclass(slots=True)
class Heads:
    """The heads behind one answer, each read once, so that it never shows two versions of a document.

    `lost` names documents whose live version differs from the one found.
    """

    scope: Scope
    _found: dict[Name, Head] = field(default_factory=dict)
    _shown: dict[str, str] = field(default_factory=dict)
    """Document id -> the token that is shown."""
    _known: dict[Name, str] = field(default_factory=dict)
    """The tokens that were live before the present search began."""
    lost: set[Name] = field(default_factory=set)

    def missing(self, wanted: Iterable[Name]) -> list[Name]:
        """Return the names that were not read yet, each once."""
        return [name for name in dict.fromkeys(wanted) if name not in self._found]

    def add(self, heads: Iterable[Head]) -> None:
        self._found |= {(head.document_id, head.twin): head for head in heads}

    def shows(self, document_id: str, token: str) -> bool:
        """Return whether passages of a version may be shown; its heads (`heads_of`) must have been read.

        Of two twins of a document, the first one requested is shown.
        """
        name = document_id, twin_of(token)
        if name[1] and self._live(document_id, ""):
            return False
        head = self._live(*name)
        if head is None or head.version is None:
            return False
        if head.version.token != token:
            # an attempt that is not live yet hides nothing: the live version can be found beside it
            if all(version.token != token for version in head.pending):
                self.lost.add(name)
            return False
        return self._shown.setdefault(document_id, token) == token

    def twins(self, document_ids: Iterable[str]) -> list[Name]:
        """Return the names of the twins of documents whose own heads were read."""
        return [(key, twin) for key in document_ids for twin in self._found[key, ""].twins]

    def replaced(self, documents: Iterable[Name]) -> bool:
        """Return whether one of these, whose passages were lost, has a live version that this search may have missed.

        Not if the document is deleted, inaccessible or shown after all; nor if the version was already live before the
        search began: then it was searched, and did not rank.
        """
        for document_id, twin in documents:
            head = self._live(document_id, twin)
            if head is None or head.version is None or document_id in self._shown:
                continue
            if self._known.get((document_id, twin)) != head.version.token:
                return True
        return False

    def restart(self) -> None:
        """Forget the heads, but not which versions were live: the next search begins after that."""
        self._known |= {name: head.version.token for name, head in self._found.items() if head.version is not None}
        self._found, self._shown, self.lost = {}, {}, set()

    def _live(self, document_id: str, twin: str) -> Head | None:
        """Return the head, if it has a live version that the scope can read."""
        head = self._found[document_id, twin]
        return head if head.version is not None and head.readable(self.scope.principals) else None


def heads_of(versions: Iterable[VersionName]) -> list[Name]:
    """Return the heads that decide on versions: the document's own, and a twin's."""
    return [name for document_id, token in versions for name in ((document_id, ""), (document_id, twin_of(token)))]
