"""The embedded Valkey is a real server that is bounded, local and never outlives its starter."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import redis

from app.dev.valkey import start_valkey
from app.errors import ProvisioningError


def test_speaks_redis_on_loopback_and_forgets(server_folder: Path) -> None:
    with start_valkey(data_dir=server_folder, max_memory_mb=8) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("key", "value", ex=100)
            assert client.get("key") == b"value"
            assert client.config_get("maxmemory") == {"maxmemory": str(8 * 1024 * 1024)}
            for number in range(200):  # 20 MB into 8: the oldest go, writing goes on
                client.set(f"large-{number}", b"x" * 100_000)
            assert client.info("stats")["evicted_keys"] > 0
        process = psutil.Process(server.pid)
        listening = {c.laddr.ip for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}
    assert not psutil.pid_exists(server.pid)
    assert [file.name for file in server_folder.iterdir()] == ["valkey.log"]
    with pytest.raises(ProvisioningError, match="Valkey ended with exit code"):
        server.check_alive()


def test_two_side_by_side_are_two(server_folder: Path) -> None:
    with (
        start_valkey(data_dir=server_folder / "a") as first,
        start_valkey(data_dir=server_folder / "b") as second,
        redis.Redis.from_url(first.url) as one,
        redis.Redis.from_url(second.url) as two,
    ):
        one.set("key", "first")
        assert two.get("key") is None


def test_a_shared_one_answers(valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as client:
        assert client.ping()
