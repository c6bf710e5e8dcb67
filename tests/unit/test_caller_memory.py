"""What a process keeps of callers' requests is bounded in bytes, whatever they send."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from app.cache.codec import EntryCodec
from app.cache.connection import RedisConnection
from app.cache.vectors import VectorCache
from app.config import load_settings
from app.search.known_words import KnownWords
from app.search.request import MAX_QUERY_CHARACTERS

MOST_BYTES = 48 * 1024 * 1024


def words_behind_large_filters() -> object:
    known = KnownWords()
    for number in range(600):
        filters = [{"terms": {"document_id": [f"{'x' * 500}{n}" for n in range(200)] + [str(number)]}}]
        known.learn(filters, [f"{number}-{n}" for n in range(100)])
    return known


def long_words() -> object:
    known = KnownWords()
    for number in range(20_000):
        known.learn([], [f"{number:{MAX_QUERY_CHARACTERS}}"])
    return known


def vectors_of_long_queries() -> object:
    settings = load_settings()
    cache = VectorCache(
        RedisConnection(settings.redis),
        EntryCodec(settings.access),
        entries=settings.cache.embedding_cache_entries,
        ttl_s=60,
    )
    for number in range(settings.cache.embedding_cache_entries):
        cache.put(str(number), [np.zeros(384, np.float32), np.zeros((256, 64), np.float32), np.zeros(256, np.float32)])
    return cache


@pytest.mark.parametrize("fill", [words_behind_large_filters, long_words, vectors_of_long_queries])
def test_callers_do_not_decide_how_much_is_kept(fill: Callable[[], object]) -> None:
    tracemalloc.start()
    try:
        kept = fill()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < MOST_BYTES
        del kept
    finally:
        tracemalloc.stop()
