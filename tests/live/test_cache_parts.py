"""The caches' parts on a real Valkey: what is not ours reads as nothing, one computes, counters only rise."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from app.cache.codec import MOST_BYTES, EntryCodec, digest
from app.cache.connection import RedisConnection
from app.cache.generation import IndexGeneration
from app.cache.response_cache import ResponseCache
from app.cache.scores import ScoreCache
from app.cache.single_flight import SingleFlight
from app.cache.vectors import VectorCache
from app.config import Settings, load_settings
from app.dev.valkey import start_valkey
from app.errors import ConfigurationError

pytestmark = pytest.mark.live

SECRET = "s" * 32


@pytest.fixture
def settings(valkey_url: str) -> Settings:
    return load_settings(redis_url=valkey_url, keys_secret=SECRET)


@pytest.fixture
def connection(settings: Settings) -> Iterator[RedisConnection]:
    made = RedisConnection(settings.redis)
    yield made
    made.close()


@pytest.fixture
def raw(valkey_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(valkey_url) as client:
        yield client


@pytest.fixture
def key() -> str:
    return f"test:{secrets.token_hex(8)}"


def test_what_is_kept_is_found_until_its_time_is_over(
    connection: RedisConnection, settings: Settings, raw: Any, key: str
) -> None:
    cache = ResponseCache(connection, EntryCodec(settings.access), 600)
    assert cache.get(key) is None
    assert cache.put(key, {"text": "äöü 🎈", "score": 0.1})
    assert cache.get(key) == {"text": "äöü 🎈", "score": 0.1}
    assert 0 < raw.ttl(key) <= 600


@pytest.mark.parametrize(
    "foreign",
    [
        b"",
        b"braid1",
        b"braid1" + bytes(40),
        b'{"answer": "forged"}',
        b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94.",
        b"\xff" * 5000,
    ],
)
def test_foreign_bytes_are_a_miss(
    connection: RedisConnection, settings: Settings, raw: Any, key: str, foreign: bytes
) -> None:
    raw.set(key, foreign)
    assert ResponseCache(connection, EntryCodec(settings.access), 600).get(key) is None
    vectors = VectorCache(connection, EntryCodec(settings.access), entries=0, ttl_s=60)
    assert vectors.get(key) is None


def test_an_entry_is_good_for_its_own_key_and_secret_alone(
    connection: RedisConnection, settings: Settings, raw: Any, key: str
) -> None:
    cache = ResponseCache(connection, EntryCodec(settings.access), 600)
    cache.put(key, {"answer": "of the first"})
    sealed = raw.get(key)
    raw.set(f"{key}:other", sealed)
    assert cache.get(f"{key}:other") is None
    raw.set(key, sealed[:-1] + b" ")
    assert cache.get(key) is None
    raw.set(key, sealed)
    assert cache.get(key) == {"answer": "of the first"}
    stranger = EntryCodec(settings.with_values(keys_secret=None).access)
    assert ResponseCache(connection, stranger, 600).get(key) is None


def test_another_type_under_a_key_is_a_miss_and_redis_is_not_given_up(
    connection: RedisConnection, settings: Settings, raw: Any, key: str
) -> None:
    raw.lpush(key, "x")
    assert ResponseCache(connection, EntryCodec(settings.access), 600).get(key) is None
    assert connection.available


def test_too_large_and_half_characters_are_not_kept(settings: Settings) -> None:
    codec = EntryCodec(settings.access)
    assert codec.pack("k", {"text": "x" * MOST_BYTES}) is None
    assert codec.pack("k", {"text": "\ud800"}) is None


def test_a_digest_can_not_be_made_by_joining_parts() -> None:
    assert digest("a", "b") != digest("ab")
    assert digest(["a"], "b") != digest(["a", "b"])
    assert digest("1") != digest(1)
    assert digest({"x": 1, "y": 2}) == digest({"y": 2, "x": 1})
    # composed and decomposed, full width, upper case: four names
    assert len({digest("é"), digest("e\u0301"), digest("É"), digest("ｅ")}) == 4


def test_vectors_come_back_as_they_were(connection: RedisConnection, settings: Settings, key: str) -> None:
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array([0.25], np.float32)]
    VectorCache(connection, EntryCodec(settings.access), entries=10, ttl_s=60).put(key, arrays)
    for entries in (0, 10):  # another process, with and without memory of its own
        cache = VectorCache(connection, EntryCodec(settings.access), entries=entries, ttl_s=60)
        for _ in range(2):
            found = cache.get(key)
            assert found is not None
            assert [item.tolist() for item in found] == [item.tolist() for item in arrays]
            with pytest.raises(ValueError, match="read-only"):
                found[0][0, 0] = 9


def test_scores_are_kept_one_by_one(connection: RedisConnection, settings: Settings, raw: Any, key: str) -> None:
    cache = ScoreCache(connection, EntryCodec(settings.access), 60)
    cache.put(key, {"a": 0.5, "b": -1e-9})
    raw.hset(key, "c", b"no float")
    raw.hset(key, "d", raw.hget(key, "a"))  # moved
    assert cache.get(key, ["a", "b", "c", "d", "e"]) == {"a": 0.5, "b": -1e-9}
    assert 0 < raw.ttl(key) <= 60


def test_generations_only_rise_by_tenant_and_for_all(connection: RedisConnection, raw: Any) -> None:
    mine, other = f"t{secrets.token_hex(4)}", f"t{secrets.token_hex(4)}"
    generation = IndexGeneration(connection)
    begun, others = generation.current(mine), generation.current(other)
    assert begun is not None
    assert others is not None
    assert generation.current(mine) == begun
    written = generation.advance(mine, revoking=False)
    assert written is not None
    assert (written.writes, written.revocations) == (begun.writes + 1, begun.revocations)
    revoked = generation.advance(mine, revoking=True)
    assert revoked is not None
    assert (revoked.writes, revoked.revocations) == (begun.writes + 2, begun.revocations + 1)
    assert generation.current(other) == others
    generation.advance_all()
    for tenant, before in ((mine, revoked), (other, others)):
        after = generation.current(tenant)
        assert after is not None
        assert after.writes > before.writes
        assert after.revocations > before.revocations


def test_a_lost_counter_does_not_count_again_from_where_it_was(connection: RedisConnection, raw: Any) -> None:
    tenant = f"t{secrets.token_hex(4)}"
    generation = IndexGeneration(connection)
    seen = [generation.current(tenant)]
    for _ in range(3):
        seen.append(generation.advance(tenant, revoking=True))
    raw.delete(f"braid:{tenant}:index-generation", f"braid:{tenant}:revocations")
    time.sleep(0.01)
    for _ in range(3):
        seen.append(generation.current(tenant))
        seen.append(generation.advance(tenant, revoking=True))
    assert None not in seen
    writes = [item.writes for item in seen if item is not None]
    assert writes == sorted(writes)


GARBAGE = (b"not a number", b"", b"9" * 400, b"9" * 18, b"-5", b"1e3", b" 12", "٣".encode(), b"\x80\x04\x95.")


@pytest.mark.parametrize("kind", ["index-generation", "revocations"])
@pytest.mark.parametrize("whose", ["tenant", "all"])
def test_whatever_lies_in_place_of_a_counter_is_replaced(
    connection: RedisConnection, raw: Any, kind: str, whose: str
) -> None:
    tenant = f"t{secrets.token_hex(4)}"
    key = f"braid:{tenant if whose == 'tenant' else '*'}:{kind}"
    generation = IndexGeneration(connection)
    seen = {generation.current(tenant)}

    def put_list() -> None:
        raw.delete(key)
        raw.lpush(key, "x")

    for number, put in enumerate([*(lambda value=value: raw.set(key, value) for value in GARBAGE), put_list]):
        put()
        time.sleep(0.002)  # counters begin at the time in milliseconds
        found = generation.current(tenant) if number % 2 else generation.advance(tenant, revoking=True)
        assert found is not None
        assert found not in seen
        assert max(found.writes, found.revocations) < 2**53
        seen.add(found)
        assert generation.current(tenant) == found


def test_one_computes_and_the_others_wait(settings: Settings, key: str) -> None:
    """Two processes' worth of flights, ten callers each."""
    connections = [RedisConnection(settings.redis) for _ in range(2)]
    caches = [ResponseCache(item, EntryCodec(settings.access), 60) for item in connections]
    flights = [SingleFlight(item) for item in connections]
    computed: list[int] = []
    got: list[Any] = []
    start = threading.Barrier(20)

    def call(number: int) -> None:
        cache, flight = caches[number % 2], flights[number % 2]
        start.wait()
        value, ticket = flight.join(key, lambda: cache.get(key), 20)
        if value is None:
            computed.append(number)
            time.sleep(0.3)
            value = {"made_by": number}
            cache.put(key, value)
            ticket.finish(value)
        got.append(value)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(computed) == 1
    assert got == [{"made_by": computed[0]}] * 20
    for item in connections:
        item.close()


def test_who_waits_in_vain_computes_for_itself(connection: RedisConnection, key: str) -> None:
    flights = SingleFlight(connection)
    value, ticket = flights.join(key, lambda: None, 5)
    assert value is None
    follower, no_duty = flights.join(key, lambda: None, 0.05)
    assert follower is None
    no_duty.finish({"ignored": True})
    ticket.finish(None)
    ticket.finish({"too late": True})
    again, ticket = flights.join(key, lambda: None, 5)
    assert again is None
    ticket.finish(None)


def test_a_lock_whose_holder_died_is_not_waited_for_beyond_the_budget(
    connection: RedisConnection, raw: Any, key: str
) -> None:
    raw.set(f"{key}:lock", "a process that was killed", px=60_000)
    value, ticket = SingleFlight(connection).join(key, lambda: None, 0.1)
    assert value is None
    ticket.finish(None)
    assert raw.get(f"{key}:lock") == b"a process that was killed"  # only its own lock is taken away


def test_redis_that_goes_costs_nothing(server_folder: Path) -> None:
    with start_valkey(data_dir=server_folder) as server:
        settings = load_settings(redis_url=server.url)
        connection = RedisConnection(settings.redis)
        cache, generation = ResponseCache(connection, EntryCodec(settings.access), 60), IndexGeneration(connection)
        assert cache.put("k", {"a": 1})
    assert cache.get("k") is None
    assert cache.get("k") is None
    assert not connection.available
    assert generation.current("default") is None
    assert not connection.alive()
    value, ticket = SingleFlight(connection).join("k", lambda: cache.get("k"), 5)
    assert value is None
    ticket.finish({"a": 1})
    connection.close()


def test_a_revocation_that_redis_missed_is_made_up_for(settings: Settings, server_folder: Path) -> None:
    tenant = f"t{secrets.token_hex(4)}"
    with start_valkey(data_dir=server_folder) as server:
        connection = RedisConnection(load_settings(redis_url=server.url).redis)
        generation, of_another = IndexGeneration(connection), IndexGeneration(connection)
        before = generation.current(tenant)
        assert before is not None
        assert of_another.current(tenant) == before
        with redis.Redis.from_url(server.url) as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", "1")  # every write is refused, as by a Redis that is full
            assert generation.advance(tenant, revoking=True) is None
            assert generation.advance(tenant, revoking=False) is None
            for one in (generation, of_another):
                assert one.current(tenant) is None  # nothing is served that may be older
            client.config_set("maxmemory", "0")
        after = generation.current(tenant)
        assert after is not None
        assert after.revocations > before.revocations
        assert after.writes > before.writes
        assert generation.current(tenant) == of_another.current(tenant) == after
        connection.close()


def test_without_redis_nothing_is_kept_and_nothing_fails() -> None:
    settings = load_settings()
    connection = RedisConnection(settings.redis)
    assert not connection.configured
    assert not ResponseCache(connection, EntryCodec(settings.access), 60).put("k", {"a": 1})
    assert IndexGeneration(connection).current("default") is None
    assert ScoreCache(connection, EntryCodec(settings.access), 60).get("k", ["a"]) == {}


def test_an_address_that_is_none_is_named() -> None:
    with pytest.raises(ConfigurationError, match="BRAID_REDIS_URL"):
        RedisConnection(load_settings(redis_url="localhost:6379").redis)
