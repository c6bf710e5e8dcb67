"""Cached query vectors: the latest in the process, more of them in Redis."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import orjson
from cachetools import LRUCache

from app import telemetry
from app.cache.codec import EntryCodec
from app.cache.connection import RedisConnection

Vectors = npt.NDArray[np.float32]
_CACHE = "embeddings"
_ENTRY_BYTES = 8192
"""Bytes of a typical query with its token vectors; the longest queries take many times as much and
count accordingly."""
_OVERHEAD_BYTES = 1024
"""Bytes of an entry besides its numbers: objects, and the key."""


class VectorCache:
    """Tuples of float32 arrays by key. Thread-safe; returned arrays must not be modified."""

    def __init__(self, connection: RedisConnection, codec: EntryCodec, *, entries: int, ttl_s: int) -> None:
        """Create the cache: `entries` in the process, fewer if they are large, 0 for Redis only; `ttl_s` seconds in
        Redis.
        """
        self._connection = connection
        self._codec = codec
        self._ttl_s = ttl_s
        self._lock = threading.Lock()
        self._near: LRUCache[str, tuple[Vectors, ...]] = LRUCache(entries * _ENTRY_BYTES, getsizeof=_size)

    def get(self, key: str) -> tuple[Vectors, ...] | None:
        """Return the arrays under `key`, or None."""
        with self._lock:
            found = self._near.get(key)
        if found is None:
            data = self._connection.ask(lambda client: client.get(key), None)
            found = None if data is None else self._read(key, data)
            if found is not None:
                self._remember(key, found)
        telemetry.CACHE_REQUESTS.labels(_CACHE, "miss" if found is None else "hit").inc()
        return found

    def put(self, key: str, arrays: Sequence[Vectors]) -> None:
        """Store `arrays` under `key`."""
        self._remember(key, tuple(arrays))
        header = orjson.dumps([list(item.shape) for item in arrays])
        body = b"".join(np.ascontiguousarray(item, "<f4").tobytes() for item in arrays)
        data = self._codec.seal(key, len(header).to_bytes(4, "little") + header + body)
        if data is not None:
            self._connection.ask(lambda client: client.set(key, data, ex=self._ttl_s), None)

    def _remember(self, key: str, arrays: tuple[Vectors, ...]) -> None:
        for item in arrays:
            item.setflags(write=False)
        with self._lock:
            if _size(arrays) <= self._near.maxsize:
                self._near[key] = arrays

    def _read(self, key: str, data: object) -> tuple[Vectors, ...] | None:
        payload = self._codec.open(key, data)
        if payload is None:
            telemetry.CACHE_REQUESTS.labels(_CACHE, "corrupt").inc()
            return None
        size = int.from_bytes(payload[:4], "little")
        found, start = [], 4 + size
        for shape in orjson.loads(payload[4:start]):
            count = int(np.prod(shape))
            found.append(np.frombuffer(payload, "<f4", count, start).reshape(shape).astype(np.float32, copy=False))
            start += 4 * count
        return tuple(found)


def _size(arrays: tuple[Vectors, ...]) -> int:
    """Return the bytes of an entry in the process."""
    return _OVERHEAD_BYTES + sum(item.nbytes for item in arrays)
