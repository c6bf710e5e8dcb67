"""Queries that were answered lately, found again by the similarity of their vectors: the near-identical cache.

A bucket holds the queries of one scope, one set of options and one index generation; who names the bucket sees to that.
Redis keeps each bucket as a stream, which all workers write and each mirrors: a look-up reads what came since its last
one (mostly nothing) and multiplies one matrix. What is similar enough must then pass `same_question.differs`.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from app import telemetry
from app.cache.connection import RedisConnection
from app.cache.entries import EntryCodec, digest
from app.cache.question import MAX_CHARACTERS
from app.cache.same_question import differs

Vectors = npt.NDArray[np.float32]
Confirm = Callable[[str], bool]
Rows = list[tuple[bytes, dict[bytes, bytes]]]

_CACHE = "near"
_FIELD = b"e"
_MOST_TRIED = 16
"""Similar queries that the gate looks at, the most similar first."""
_MOST_CONFIRMED = 2
_MEMORY_BYTES = 64 * 1024 * 1024
_ITEM_BYTES = 400
"""Of a mirrored query's Python objects, beside its text and its vector."""


@dataclass(frozen=True, slots=True)
class NearQuery:
    """An earlier query that asks the same, the `answer` that it was added with, and the cosine of the two."""

    query: str
    answer: str
    similarity: float


@dataclass(frozen=True, slots=True)
class _Item:
    query: str
    answer: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class _View:
    """What look-ups read: the first `count` rows and items. Both only grow behind it, or are replaced as a whole."""

    matrix: Vectors
    items: list[_Item]
    count: int


@dataclass(slots=True)
class _Bucket:
    view: _View
    last_id: bytes | None = None
    size: int = 0
    refreshing: threading.Lock = field(default_factory=threading.Lock)


class NearQueries:
    """Buckets of answered queries. Thread-safe; without Redis it is empty and stays so."""

    def __init__(
        self,
        connection: RedisConnection,
        codec: EntryCodec,
        *,
        entries: int,
        ttl_s: int,
        threshold: float,
        memory_bytes: int = _MEMORY_BYTES,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            connection: Redis, or none.
            codec: what entries are sealed with.
            entries: queries of a bucket that are compared with, the latest.
            ttl_s: seconds after which a query counts no more; that of the answers.
            threshold: cosine from which two queries are looked at.
            memory_bytes: what the mirrors of all buckets may take in this process; the least used go first.
        """
        self._connection = connection
        self._codec = codec
        self._entries = entries
        self._ttl_s = ttl_s
        self._threshold = threshold
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._size = 0

    def find(self, bucket: str, query: str, vector: Vectors, confirm: Confirm | None = None) -> NearQuery | None:
        """The most similar query of `bucket` that asks the same as `query`, or None.

        Args:
            bucket: names scope, options and index generation, all of them; of any length.
            query: its text.
            vector: its unit vector, shape (dimension,).
            confirm: a further check, asked with the earlier query's text; False refuses it. What it raises goes on.
        """
        if len(query) > MAX_CHARACTERS:
            return self._count(None, "miss")
        view = self._fresh_view(_key(bucket), vector.shape[0])
        similar = _similar(view, vector, self._threshold)
        oldest = int((time.time() - self._ttl_s) * 1000)
        confirmed = 0
        for row, similarity in similar:
            item = view.items[row]
            if item.at_ms < oldest or differs(query, item.query) is not None:
                continue
            if confirm is not None:
                if confirmed == _MOST_CONFIRMED:
                    break
                confirmed += 1
                if not confirm(item.query):
                    continue
            return self._count(NearQuery(item.query, item.answer, similarity), "hit")
        return self._count(None, "refused" if similar else "miss")

    def add(self, bucket: str, query: str, vector: Vectors, answer: str) -> bool:
        """Remember that `query` was answered; whether it was kept.

        Args:
            bucket: as in `find`.
            query: its text; longer than `MAX_CHARACTERS`: not kept.
            vector: its unit vector.
            answer: what `find` shall give back, such as the key of the answer; best short.
        """
        if len(query) > MAX_CHARACTERS:
            return False
        key = _key(bucket)
        try:
            about = orjson.dumps([query, answer])
        except orjson.JSONEncodeError:  # half a character
            return False
        body = len(about).to_bytes(4, "little") + about + vector.astype("<f2").tobytes()
        data = self._codec.seal(key, body)
        if data is None:
            return False

        def write(client: Any) -> bool:
            with client.pipeline(transaction=False) as commands:
                commands.xadd(key, {_FIELD: data}, maxlen=self._entries, approximate=True)
                commands.expire(key, self._ttl_s)
                return bool(commands.execute()[0])

        return self._connection.ask(write, False)

    def _fresh_view(self, key: str, dimension: int) -> _View:
        """The mirror of the stream `key`, after what came since was read; as it was where another thread reads it."""
        with self._lock:
            found = self._buckets.get(key)
            if found is None:
                found = self._buckets[key] = _Bucket(_View(np.empty((0, dimension), np.float32), [], 0))
            self._buckets.move_to_end(key)
        if found.refreshing.acquire(blocking=False):
            try:
                self._refresh(key, found)
            finally:
                found.refreshing.release()
        return found.view

    def _refresh(self, key: str, bucket: _Bucket) -> None:
        nothing: Rows = []
        rows = self._connection.ask(lambda client: self._new_rows(client, key, bucket.last_id), nothing)
        dimension = bucket.view.matrix.shape[1]
        read = [found for place, fields in rows if (found := self._read(key, place, fields, dimension)) is not None]
        if rows:
            bucket.last_id = rows[-1][0]
        if read:
            vectors, items = zip(*read, strict=True)
            bucket.view = _appended(bucket.view, np.stack(vectors), list(items), self._entries)
        if rows or not bucket.view.count:
            self._account(key, bucket)

    def _new_rows(self, client: Any, key: str, last_id: bytes | None) -> Rows:
        """What the stream holds behind `last_id`, the oldest first; at first its latest."""
        if last_id is None:
            latest: Rows = client.xrevrange(key, count=self._entries)
            return latest[::-1]
        behind: Rows = client.xrange(key, min=b"(" + last_id, count=self._entries)
        return behind

    def _read(self, key: str, place: bytes, fields: dict[bytes, bytes], dimension: int) -> tuple[Vectors, _Item] | None:
        """One entry of a stream; None, counted, where it is not one that `add` wrote there."""
        payload = self._codec.open(key, fields.get(_FIELD))
        try:
            size = 4 + int.from_bytes(payload[:4], "little") if payload else 0
            if payload and len(payload) == size + 2 * dimension:
                query, answer = orjson.loads(payload[4:size])
                vector = np.frombuffer(payload, "<f2", offset=size).astype(np.float32)
                if np.isfinite(vector).all():
                    return vector, _Item(str(query), str(answer), int(place.split(b"-")[0]))
        except (ValueError, TypeError):  # sealed, though not by `add`
            pass
        telemetry.CACHE_REQUESTS.labels(_CACHE, "corrupt").inc()
        return None

    def _account(self, key: str, bucket: _Bucket) -> None:
        """Count what `bucket` takes, and let those go that were not used for longest until all fit; never itself."""
        view = bucket.view
        size = view.matrix.nbytes + sum(map(_bytes, view.items[: view.count])) if view.count else 0
        with self._lock:
            if self._buckets.get(key) is not bucket:
                return
            self._size += size - bucket.size
            bucket.size = size
            if not size:
                del self._buckets[key]
            while self._size > self._memory_bytes and len(self._buckets) > 1:
                oldest = next(iter(self._buckets))
                if oldest == key:
                    self._buckets.move_to_end(key)
                    continue
                self._size -= self._buckets.pop(oldest).size

    def _count(self, found: NearQuery | None, outcome: str) -> NearQuery | None:
        telemetry.CACHE_REQUESTS.labels(_CACHE, outcome).inc()
        return found


def _key(bucket: str) -> str:
    return f"braid:near:{digest(bucket)}"


def _bytes(item: _Item) -> int:
    return _ITEM_BYTES + 2 * (len(item.query) + len(item.answer))


def _similar(view: _View, vector: Vectors, threshold: float) -> list[tuple[int, float]]:
    """(row, cosine) of the rows at or above `threshold`, the most similar first, the later before the earlier."""
    if not view.count or view.matrix.shape[1] != vector.shape[0]:
        return []
    cosines = view.matrix[: view.count] @ vector
    rows = np.flatnonzero(cosines >= threshold)
    order = np.lexsort((-rows, -cosines[rows]))[:_MOST_TRIED]
    return [(int(row), float(cosines[row])) for row in rows[order]]


def _appended(view: _View, vectors: Vectors, items: list[_Item], most: int) -> _View:
    """`view` with rows behind it, at most the latest `most` (and a quarter more, so that few are moved at a time)."""
    count = view.count + len(items)
    if count > most + most // 4:
        kept = max(0, most - len(items))
        matrix = np.concatenate((view.matrix[view.count - kept : view.count], vectors[-most:]))
        rest = view.items[view.count - kept : view.count] + items[-most:]
        return _View(matrix, rest, len(rest))
    matrix = view.matrix
    if count > len(matrix):
        matrix = np.empty(
            (min(max(count, 2 * len(matrix), 4), max(count, most + most // 4)), vectors.shape[1]), np.float32
        )
        matrix[: view.count] = view.matrix[: view.count]
    matrix[view.count : count] = vectors
    view.items.extend(items)  # readers of the old view stop at its count
    return _View(matrix, view.items, count)
