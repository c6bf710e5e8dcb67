"""Limits of the real service, counted in a real Valkey that can also be gone, hung, or hold other things."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import redis

from app.dev.valkey import EmbeddedValkey, start_valkey
from tests.service import NO_STORE, Service, running_service, wait_for

ASK = {"input": "a"}
KEY = "the-operators-key-of-these-tests"


@pytest.fixture
def own_valkey() -> Iterator[EmbeddedValkey]:
    """One that a test may stop."""
    with tempfile.TemporaryDirectory(prefix="braid-test-") as folder:
        Path(folder).chmod(0o755)
        with start_valkey(data_dir=Path(folder)) as server:
            yield server


def ask(service: Service) -> httpx2.Response:
    """On a connection of its own, so that any worker may answer."""
    return httpx2.post(f"{service.url}/v1/embeddings", json=ASK, timeout=120, trust_env=False)


def test_a_limit_holds_over_all_workers_and_says_what_is_left(own_valkey: EmbeddedValkey) -> None:
    with running_service(workers="2", redis_url=own_valkey.url, rate_limit_key="10/hour;100/day") as service:
        left = []
        for _ in range(10):
            answer = ask(service)
            assert answer.status_code == 200
            assert answer.headers["RateLimit-Limit"] == "10"
            assert 3500 < int(answer.headers["RateLimit-Reset"]) <= 3601
            left.append(int(answer.headers["RateLimit-Remaining"]))
        assert left == list(range(9, -1, -1))
        for _ in range(6):
            refused = ask(service)
            assert refused.status_code == 429
            assert refused.headers["Content-Type"] == "application/problem+json"
            assert refused.json()["type"] == "urn:braid:problem:rate-limited"
            assert "10 per 1 hour" in refused.json()["detail"]
            assert 3500 < int(refused.headers["Retry-After"]) <= 3601
            assert refused.headers["RateLimit-Remaining"] == "0"
        # probes, the page and the documentation go on
        with service.client() as client:
            for path in ("/healthz", "/readyz", "/", "/docs"):
                answer = client.get(path)
                assert answer.status_code in {200, 503}, path
                assert "RateLimit-Limit" not in answer.headers
        with redis.Redis.from_url(own_valkey.url) as client:
            (*_,) = keys = [key.decode() for key in client.scan_iter("braid:limits:*")]
            assert len(keys) == 2  # one for each window, and none names the caller
            assert not any("default" in key or "operator" in key for key in keys)
            assert all(client.ttl(key) > 0 for key in keys)


def test_the_window_moves(own_valkey: EmbeddedValkey) -> None:
    with running_service(redis_url=own_valkey.url, rate_limit_tenant="3/2second") as service:
        began = time.monotonic()
        answered = 0
        while answered < 9:
            answer = ask(service)
            if answer.status_code == 200:
                answered += 1
            else:
                assert "this tenant's callers together" in answer.json()["detail"]
                time.sleep(0.1)
        assert time.monotonic() - began >= 4  # never more than 3 in any 2 seconds
        assert service.metric('rate_limited_total{of="tenant"}') > 0


def test_without_redis_the_limit_is_counted_in_the_process(own_valkey: EmbeddedValkey) -> None:
    with running_service(redis_url=own_valkey.url, rate_limit_key="8/hour") as service:
        assert [ask(service).status_code for _ in range(4)] == [200] * 4
        own_valkey.stop()
        # never an error, and not without a limit: this process counts from here on
        statuses = [ask(service).status_code for _ in range(20)]
        assert statuses == [200] * 8 + [429] * 12
        assert service.said.count("Redis is unavailable: rate limits are counted in this process alone") == 1
        assert service.metric('rate_limit_checks_total{store="process"}') >= 20


def test_a_redis_that_hangs_is_waited_for_shortly_and_taken_back(own_valkey: EmbeddedValkey) -> None:
    with running_service(redis_url=own_valkey.url, rate_limit_key="100000/hour") as service:
        assert ask(service).status_code == 200
        os.kill(own_valkey.pid, signal.SIGSTOP)
        try:
            slowest = 0.0
            for _ in range(60):
                began = time.monotonic()
                assert ask(service).status_code == 200
                slowest = max(slowest, time.monotonic() - began)
                time.sleep(0.05)
            print(f"slowest answer with Redis hung: {slowest * 1000:.0f} ms")
        finally:
            os.kill(own_valkey.pid, signal.SIGCONT)

        def back() -> bool:
            before = service.metric('rate_limit_checks_total{store="redis"}')
            return ask(service).status_code == 200 and service.metric('rate_limit_checks_total{store="redis"}') > before

        wait_for(back, "Redis was not taken back")


def test_cached_answers_do_not_push_windows_out(server_folder: Path) -> None:
    with (
        start_valkey(data_dir=server_folder, max_memory_mb=8) as small,
        running_service(redis_url=small.url, rate_limit_key="6/hour", rate_limit_tenant="9/day") as service,
        redis.Redis.from_url(small.url) as client,
    ):
        assert [ask(service).status_code for _ in range(7)] == [200] * 6 + [429]
        for number in range(800):  # 80 MB into 8
            client.set(f"braid:response:{number}", b"x" * 100_000, ex=600)
        assert client.info("stats")["evicted_keys"] > 600
        assert ask(service).status_code == 429


def test_foreign_bytes_under_our_keys_are_no_error(own_valkey: EmbeddedValkey) -> None:
    with (
        running_service(redis_url=own_valkey.url, rate_limit_key="50/hour") as service,
        redis.Redis.from_url(own_valkey.url) as client,
    ):
        assert ask(service).status_code == 200
        (key,) = client.scan_iter("braid:limits:*")
        client.delete(key)
        client.set(key, b"\x80\x04\x95not a list")
        assert [ask(service).status_code for _ in range(5)] == [200] * 5
        client.delete(key)
        client.rpush(key, *[b"\xff\x00garbage"] * 50)
        statuses = {ask(service).status_code for _ in range(60)}
        assert statuses == {200, 429}
        assert "Traceback" not in service.said, service.said


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("BRAID_RATE_LIMIT_KEY", "lots", "BRAID_RATE_LIMIT_KEY: 'lots' is not a rate limit"),
        ("BRAID_RATE_LIMIT_TENANT", "0/day", "BRAID_RATE_LIMIT_TENANT: '0/day' is not a rate limit"),
        ("BRAID_CORS_ORIGINS", "*", "BRAID_CORS_ORIGINS: '*' is not an origin"),
        ("BRAID_AUDIT_LOG", "/nowhere/audit.jsonl", "BRAID_AUDIT_LOG='/nowhere/audit.jsonl' can't be opened"),
    ],
)
def test_wrong_settings_stop_the_start_by_name(variable: str, value: str, words: str) -> None:
    env = {"PATH": os.environ["PATH"], "BRAID_OPENSEARCH_URL": NO_STORE, variable: value}
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "serve"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())


def test_pages_of_listed_sites_may_ask_and_others_may_not() -> None:
    page, other = "https://app.example", "https://app.example.evil"
    with running_service(cors_origins=f"{page},http://localhost:3000") as service, service.client() as client:
        asked = {"Origin": page, "Access-Control-Request-Method": "POST"}
        wanted = {**asked, "Access-Control-Request-Headers": "authorization,content-type"}
        preflight = client.options("/v1/embeddings", headers=wanted)
        assert preflight.status_code == 200
        assert preflight.headers["Access-Control-Allow-Origin"] == page
        assert preflight.headers["Access-Control-Allow-Headers"] == "authorization, content-type"
        answer = client.post("/v1/embeddings", json=ASK, headers={"Origin": page})
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == page
        assert "RateLimit-Remaining" in answer.headers["Access-Control-Expose-Headers"]
        wrong = client.post("/v1/embeddings", json=[], headers={"Origin": page})
        assert (wrong.status_code, wrong.headers["Access-Control-Allow-Origin"]) == (422, page)
        refused = client.post("/v1/embeddings", json=ASK, headers={"Origin": other})
        assert refused.status_code == 401
        assert "Access-Control-Allow-Origin" not in refused.headers
        preflight = client.options("/v1/embeddings", headers={**wanted, "Origin": other})
        assert "Access-Control-Allow-Origin" not in preflight.headers


def test_with_a_key_an_origin_changes_nothing_but_the_headers() -> None:
    with running_service(cors_origins="https://app.example", api_key=KEY) as service, service.client() as client:
        listed = {"Origin": "https://app.example"}
        assert client.post("/v1/embeddings", json=ASK, headers=listed).status_code == 401
        right = {**listed, "Authorization": f"Bearer {KEY}"}
        assert client.post("/v1/embeddings", json=ASK, headers=right).status_code == 200
