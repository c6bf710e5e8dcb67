"""Words that are known to be in the collection, so that looking for typing errors costs a query of known words nothing.

Whether a word is there depends on what the caller may see and asks for, so the filters are part of what is remembered.
Only presence is: a word that is missing today may come with the next document. One that vanished is merely not
corrected until its entry has grown old.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import orjson
from cachetools import TTLCache

from app.store.filters import Clause

_ENTRIES = 100_000
_SECONDS = 600.0


class KnownWords:
    """Words by filter. Thread-safe; one a process."""

    def __init__(self) -> None:
        self._known: TTLCache[tuple[bytes, str], bool] = TTLCache(_ENTRIES, _SECONDS)
        self._lock = threading.Lock()

    def unknown(self, filters: Sequence[Clause], words: Sequence[str]) -> tuple[str, ...]:
        """Those of `words` whose presence must be looked up."""
        key = orjson.dumps(filters)
        with self._lock:
            return tuple(word for word in words if (key, word) not in self._known)

    def learn(self, filters: Sequence[Clause], words: Sequence[str]) -> None:
        """`words` are there."""
        key = orjson.dumps(filters)
        with self._lock:
            for word in words:
                self._known[key, word] = True
