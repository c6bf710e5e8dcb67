"""Known words of the collection, so that checking for typing errors costs a query of known words nothing.

Whether a word occurs depends on the caller's access and filters, so the filters are part of the key. Only presence is
cached, because a missing word may arrive with the next document. A word that vanished is only not corrected until its
entry expires.

The keys are digests of one size, so that callers' filters and words do not determine the memory used.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence

import orjson
from cachetools import TTLCache

from app.store.filters import Clause

_ENTRIES = 50_000
"""Maximum number of entries; about 20 MB."""
_DIGEST = 16
_SECONDS = 600.0


class KnownWords:
    """Words by filter. Thread-safe; one instance per process."""

    def __init__(self, seconds: float = _SECONDS) -> None:
        self._known: TTLCache[bytes, bool] = TTLCache(_ENTRIES, seconds)
        self._lock = threading.Lock()

    def find_unknown(self, filters: Sequence[Clause], words: Sequence[str]) -> tuple[str, ...]:
        """Return those of `words` whose presence must be looked up."""
        keys = list(_keys(filters, words))
        with self._lock:
            return tuple(word for word, key in zip(words, keys, strict=True) if key not in self._known)

    def learn(self, filters: Sequence[Clause], words: Sequence[str]) -> None:
        """Record that `words` occur."""
        keys = list(_keys(filters, words))
        with self._lock:
            for key in keys:
                self._known[key] = True


def _keys(filters: Sequence[Clause], words: Sequence[str]) -> Iterator[bytes]:
    """Yield the key of each word with the filters."""
    if not words:
        return
    behind = hashlib.blake2b(orjson.dumps(filters), digest_size=_DIGEST).digest()
    for word in words:
        key = hashlib.blake2b(behind, digest_size=_DIGEST)
        key.update(word.encode("utf-8", "surrogatepass"))
        yield key.digest()
