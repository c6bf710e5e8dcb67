"""The cache for near-identical queries on a real Valkey, with vectors of the tests' own."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import redis

from app.cache.connection import RedisConnection
from app.cache.entries import EntryCodec, digest
from app.cache.near import NearQueries, Vectors
from app.cache.question import MAX_CHARACTERS
from app.config import Settings, load_settings

pytestmark = pytest.mark.live

SECRET = "s" * 32
WIDTH = 32
Make = Callable[..., NearQueries]


@pytest.fixture
def settings(valkey_url: str) -> Settings:
    return load_settings(redis_url=valkey_url, keys_secret=SECRET)


@pytest.fixture
def raw(valkey_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(valkey_url) as client:
        yield client


@pytest.fixture
def bucket() -> str:
    return f"test:{secrets.token_hex(8)}"


@pytest.fixture
def make(settings: Settings) -> Iterator[Make]:
    """Makes a cache as another worker would: with its own connection and an empty mirror."""
    connections = []

    def made(**changes: Any) -> NearQueries:
        connection = RedisConnection(settings)
        connections.append(connection)
        wanted = {"entries": 100, "ttl_s": 600, "threshold": 0.8} | changes
        return NearQueries(connection, EntryCodec(settings), **wanted)

    yield made
    for connection in connections:
        connection.close()


def unit(*values: float) -> Vectors:
    vector = np.zeros(WIDTH, np.float32)
    vector[: len(values)] = values
    return vector / np.float32(np.linalg.norm(vector))


def random_unit(seed: int) -> Vectors:
    vector = np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)
    return vector / np.float32(np.linalg.norm(vector))


def key_of(bucket: str) -> str:
    return f"braid:near:{digest(bucket)}"


def test_another_worker_finds_what_one_added(make: Make, bucket: str) -> None:
    one, other = make(), make()
    assert other.find(bucket, "refund policy", unit(1, 0.1)) is None
    assert one.add(bucket, "What is the refund policy?", unit(1), "answer-1")
    found = other.find(bucket, "refund policy", unit(1, 0.1))
    assert found is not None
    assert (found.query, found.answer) == ("What is the refund policy?", "answer-1")
    assert found.similarity == pytest.approx(float(unit(1) @ unit(1, 0.1)), abs=1e-3)
    assert one.find(bucket, "refund policy", unit(1, 0.1)) == found


def test_buckets_are_apart(make: Make, bucket: str) -> None:
    near = make()
    near.add(bucket, "refund policy", unit(1), "answer-1")
    assert near.find(f"{bucket}x", "refund policy", unit(1)) is None
    assert near.find(bucket, "refund policy", unit(1)) is not None


def test_neither_likeness_alone_nor_words_alone_are_enough(make: Make, bucket: str) -> None:
    near = make()
    near.add(bucket, "enable the proxy", unit(1), "answer-1")
    assert near.find(bucket, "disable the proxy", unit(1)) is None
    assert near.find(bucket, "enable the proxy", unit(0, 1)) is None
    assert near.find(bucket, "enable a proxy", unit(1)) is not None


def test_the_most_similar_that_asks_the_same_is_taken(make: Make, bucket: str) -> None:
    near = make()
    near.add(bucket, "the refund policy", unit(1, 0.4), "far")
    near.add(bucket, "refund policies", unit(1, 0.1), "close")
    near.add(bucket, "no refund policy", unit(1), "another question")
    found = near.find(bucket, "refund policy", unit(1))
    assert found is not None
    assert found.answer == "close"


def test_of_equals_the_latest_is_taken(make: Make, bucket: str) -> None:
    near = make()
    for number in range(3):
        near.add(bucket, "refund policy", unit(1), f"answer-{number}")
    found = near.find(bucket, "refund policy", unit(1))
    assert found is not None
    assert found.answer == "answer-2"


def test_a_further_check_may_refuse(make: Make, bucket: str) -> None:
    near = make()
    near.add(bucket, "refund policies", unit(1), "answer-1")
    near.add(bucket, "the refund policy", unit(1, 0.1), "answer-2")
    asked: list[str] = []

    def confirm(query: str) -> bool:
        asked.append(query)
        return query == "the refund policy"

    found = near.find(bucket, "refund policy", unit(1), confirm)
    assert found is not None
    assert found.answer == "answer-2"
    assert asked == ["refund policies", "the refund policy"]
    assert near.find(bucket, "refund policy", unit(1), lambda query: False) is None


@pytest.mark.parametrize("known", [True, False])
def test_only_the_latest_count(make: Make, bucket: str, known: bool) -> None:
    """Whether the worker saw all of them come or begins with them there."""
    near, writer = make(entries=10), make(entries=10)
    for number in range(40):
        writer.add(bucket, f"topic {number}", random_unit(number), f"answer-{number}")
        if known:
            near.find(bucket, "nothing of it", random_unit(99))
    for number in (0, 5, 27):
        assert near.find(bucket, f"topic {number}", random_unit(number)) is None, number
    for number in (30, 35, 39):
        found = near.find(bucket, f"topic {number}", random_unit(number))
        assert found is not None
        assert found.answer == f"answer-{number}"


def test_redis_forgets_in_time_and_keeps_a_bounded_number(make: Make, bucket: str, raw: Any) -> None:
    near = make(entries=100, ttl_s=77)
    for number in range(500):
        near.add(bucket, f"topic {number}", unit(1), "answer")
    assert 0 < raw.ttl(key_of(bucket)) <= 77
    assert 100 <= raw.xlen(key_of(bucket)) <= 300  # trimmed by whole nodes of the stream


def test_an_entry_older_than_its_answer_may_be_is_left_alone(make: Make, bucket: str, raw: Any) -> None:
    near = make(ttl_s=600)
    near.add(bucket, "refund policy", unit(1), "answer-1")
    ((place, fields),) = raw.xrange(key_of(bucket))
    raw.delete(key_of(bucket))
    milliseconds = int(place.split(b"-")[0])
    raw.xadd(key_of(bucket), fields, id=f"{milliseconds - 601_000}-0")
    assert make(ttl_s=600).find(bucket, "refund policy", unit(1)) is None
    assert make(ttl_s=900).find(bucket, "refund policy", unit(1)) is not None


def test_foreign_and_corrupt_entries_are_passed_over(make: Make, bucket: str, raw: Any, settings: Settings) -> None:
    key = key_of(bucket)
    near, codec = make(), EntryCodec(settings)
    near.add(bucket, "what is a virus", unit(1), "answer-1")
    ((_, good),) = raw.xrange(key)
    data = good[b"e"]
    about = b'["refund policy","forged"]'
    size = len(about).to_bytes(4, "little")
    for entry in (
        b"",
        b"\x80\x04\x95 a pickle",
        data[:-1],
        data[:30] + bytes([data[30] ^ 1]) + data[31:],
        codec.seal(f"{key}x", size + about + unit(1).astype("<f2").tobytes()),  # of another bucket
        codec.seal(key, size + about + b"\0\0"),  # another dimension
        codec.seal(key, size + b"[" + about[1:] + unit(1).astype("<f2").tobytes()[:-2] + b"{}"),
        codec.seal(key, b"\xff\xff\xff\xff"),
        codec.seal(key, b""),
        codec.seal(key, (2).to_bytes(4, "little") + b"{}" + unit(1).astype("<f2").tobytes()),
    ):
        raw.xadd(key, {b"e": entry})
    raw.xadd(key, {b"another": b"field", b"x": data})
    near.add(bucket, "what is a bacterium", unit(0, 1), "answer-2")
    for worker in (near, make()):
        assert worker.find(bucket, "refund policy", unit(1)) is None
        assert [
            found.answer if (found := worker.find(bucket, query, vector)) else None
            for query, vector in (("what is the virus", unit(1)), ("what is the bacterium", unit(0, 1)))
        ] == ["answer-1", "answer-2"]


def test_a_key_that_holds_something_else_is_a_miss(make: Make, bucket: str, raw: Any) -> None:
    raw.set(key_of(bucket), "not a stream")
    near = make()
    assert near.find(bucket, "refund policy", unit(1)) is None
    assert not near.add(bucket, "refund policy", unit(1), "answer-1")
    raw.delete(key_of(bucket))
    assert near.add(bucket, "refund policy", unit(1), "answer-1")
    assert near.find(bucket, "refund policy", unit(1)) is not None


def test_without_redis_there_is_nothing(bucket: str) -> None:
    settings = load_settings(keys_secret=SECRET)
    near = NearQueries(RedisConnection(settings), EntryCodec(settings), entries=10, ttl_s=60, threshold=0.8)
    assert not near.add(bucket, "refund policy", unit(1), "answer-1")
    assert near.find(bucket, "refund policy", unit(1)) is None


def test_what_cannot_be_kept_is_not(make: Make, bucket: str, raw: Any) -> None:
    near = make()
    assert not near.add(bucket, "x" * (MAX_CHARACTERS + 1), unit(1), "answer-1")
    assert not near.add(bucket, "half a \ud83c", unit(1), "answer-1")
    assert near.find(bucket, "x" * (MAX_CHARACTERS + 1), unit(1)) is None
    assert near.find(bucket, "half a \ud83c", unit(1)) is None
    assert not raw.exists(key_of(bucket))


def test_mirrors_stay_within_their_memory(make: Make, bucket: str) -> None:
    """Buckets that no longer fit are dropped from the process, not from Redis."""
    near = make(memory_bytes=100_000)
    for number in range(200):
        near.add(f"{bucket}:{number}", "refund policy", unit(1), f"answer-{number}")
        assert near.find(f"{bucket}:{number}", "refund policy", unit(1)) is not None
    held = sum(bucket.view.matrix.nbytes for bucket in near._buckets.values())
    assert 0 < len(near._buckets) < 200
    assert held <= near._size <= 100_000
    for number in (0, 199):
        found = near.find(f"{bucket}:{number}", "refund policy", unit(1))
        assert found is not None
        assert found.answer == f"answer-{number}"


def test_empty_buckets_take_no_memory(make: Make, bucket: str) -> None:
    near = make()
    for number in range(50):
        assert near.find(f"{bucket}:{number}", "refund policy", unit(1)) is None
    assert not near._buckets


def test_threads_see_whole_entries(make: Make, bucket: str) -> None:
    """Writers and readers side by side: whatever is found has the answer that belongs to its query."""
    near = make(entries=50)
    wrong: list[object] = []
    done = threading.Event()

    def write(worker: int) -> None:
        for number in range(150):
            topic = 150 * worker + number
            near.add(bucket, f"topic {topic}", random_unit(topic), f"answer-{topic}")

    def read() -> None:
        topic = 0
        while not done.is_set():
            topic = (topic + 7) % 300
            try:
                found = near.find(bucket, f"the topic {topic}", random_unit(topic))
            except Exception as error:  # noqa: BLE001 - whatever a thread raises fails the test
                wrong.append(error)
                return
            if found is not None and (found.query, found.answer) != (f"topic {topic}", f"answer-{topic}"):
                wrong.append((topic, found))

    readers = [threading.Thread(target=read) for _ in range(4)]
    writers = [threading.Thread(target=write, args=(worker,)) for worker in range(2)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert not wrong
    found = near.find(bucket, "topic 149", random_unit(149)) or near.find(bucket, "topic 299", random_unit(299))
    assert found is not None
