"""Words that are known to be in the collection, so that looking for typing errors costs a query of known words nothing.

Whether a word is there depends on what the caller may see and asks for, so the filters are part of what is remembered.
Only presence is: a word that is missing today may come with the next document. One that vanished is merely not
corrected until its entry has grown old.

What is kept are digests, all of one size: neither filters nor words of callers decide how much memory this takes.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence

import orjson
from cachetools import TTLCache

from app.store.filters import Clause

_ENTRIES = 50_000
"""About 20 MB."""
_DIGEST = 16
_SECONDS = 600.0


class KnownWords:
    """Words by filter. Thread-safe; one a process."""

    def __init__(self) -> None:
        self._known: TTLCache[bytes, bool] = TTLCache(_ENTRIES, _SECONDS)
        self._lock = threading.Lock()

    def unknown(self, filters: Sequence[Clause], words: Sequence[str]) -> tuple[str, ...]:
        """Those of `words` whose presence must be looked up."""
        keys = list(_keys(filters, words))
        with self._lock:
            return tuple(word for word, key in zip(words, keys, strict=True) if key not in self._known)

    def learn(self, filters: Sequence[Clause], words: Sequence[str]) -> None:
        """`words` are there."""
        keys = list(_keys(filters, words))
        with self._lock:
            for key in keys:
                self._known[key] = True


def _keys(filters: Sequence[Clause], words: Sequence[str]) -> Iterator[bytes]:
    """Of each word behind the filters."""
    if not words:
        return
    behind = hashlib.blake2b(orjson.dumps(filters), digest_size=_DIGEST).digest()
    for word in words:
        key = hashlib.blake2b(behind, digest_size=_DIGEST)
        key.update(word.encode("utf-8", "surrogatepass"))
        yield key.digest()
