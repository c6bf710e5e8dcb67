"""The service behind Debian's nginx with the configuration that is shipped."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx2
import pytest

from tests.nginx import behind_nginx
from tests.service import Service, running_service, status_of, wait_for

POST = b"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """The service itself, with ten threads."""
    with running_service(
        concurrency="1", queue="0", writes="1", threads="1", trusted_proxies="127.0.0.1", max_body_bytes="1000000"
    ) as running:
        yield running


@pytest.fixture(scope="module")
def chain(service: Service) -> Iterator[Service]:
    """nginx in front of it, less patient than in production."""
    with behind_nginx(service.port, client_header_timeout="3s", client_body_timeout="3s") as running:
        yield running


@pytest.mark.parametrize(
    "data",
    [
        POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Content-Length: 2\r\nContent-Length: 48\r\n\r\n{}" + SMUGGLED,
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n" + SMUGGLED,
        b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n" + SMUGGLED,
        b"GET /v1/models HTTP/1.1\r\n\r\n" + SMUGGLED,
    ],
)
def test_what_two_servers_could_understand_differently_is_refused(chain: Service, data: bytes) -> None:
    answer = chain.say(data)
    assert status_of(answer) in {400, 501}
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"evil" not in answer


HOST = b"Host: 127.0.0.1\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (POST + b"Content-Length: 99999999\r\n\r\n", 413),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n", 501),
        (b"GET /v1/models HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\n\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X-A: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"X-A: " + b"a" * 5000 + b"\r\n" for _ in range(20)) + b"\r\n", 431),
        (b"TRACE / HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n", 405),
        (b"GET / HTTP/9.9\r\n" + HOST + b"\r\n", 505),
    ],
)
def test_what_nginx_refuses_itself_is_a_problem_document(chain: Service, data: bytes, status: int) -> None:
    answer = chain.say(data)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert status_of(answer) == status
    problem = json.loads(body)
    assert problem["status"] == status
    assert problem["type"].startswith("urn:braid:problem:")
    assert set(problem) == {"type", "title", "status", "detail", "message", "error"}
    assert problem["error"]["message"] == problem["message"] == problem["detail"]
    assert b"application/problem+json" in head


def test_the_answer_to_a_body_that_the_service_leaves_unread_arrives(chain: Service) -> None:
    body = b"a" * 30_000_000  # nginx still sends when the answer is there
    with chain.client() as client:
        for _ in range(10):
            refused = client.post("/v1/embeddings", content=body, headers={"Content-Type": "application/json"})
            assert refused.status_code == 413


def test_without_a_service_nginx_says_so() -> None:
    with running_service() as ended, behind_nginx(ended.port) as proxy:
        ended.process.terminate()
        ended.process.wait(60)
        gone = httpx2.get(f"{proxy.url}/v1/models", timeout=30, trust_env=False)
    assert gone.status_code == gone.json()["status"] == 502
    assert gone.headers["Content-Type"] == "application/problem+json"
    assert gone.headers["Retry-After"] == "1"


def test_the_requests_of_one_address_are_bounded(service: Service) -> None:
    with behind_nginx(service.port, limit_conn="address 1") as chain, chain.connect() as first:
        first.sendall(POST + b"Content-Length: 500\r\n\r\n{")
        wait_for(lambda: httpx2.get(f"{chain.url}/healthz", trust_env=False).status_code == 429, "it was not counted")
        told = httpx2.get(f"{chain.url}/healthz", trust_env=False)
    assert told.json()["type"] == "urn:braid:problem:overloaded"
    assert told.headers["Retry-After"] == "1"


def test_the_time_of_arrival_is_the_proxys_not_the_clients(service: Service, chain: Service) -> None:
    """A request whose time was spent before it came is answered 504; nobody but the proxy can say so."""
    long_ago = {"X-Request-Start": f"t={time.time() - 5:.3f}"}
    body = {"query": "a", "timeout_ms": 2000}
    # this test speaks from a trusted address, as the proxy does
    told = httpx2.post(f"{service.url}/v1/search", json=body, headers=long_ago, timeout=30, trust_env=False)
    asked = httpx2.post(f"{chain.url}/v1/search", json=body, headers=long_ago, timeout=30, trust_env=False)
    assert told.status_code in {429, 504}
    assert asked.status_code == 503  # there is no store


def test_a_log_of_refusals_repeats_no_request(chain: Service) -> None:
    chain.say(b"GET /v1/models?key=secret-of-a-test HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: b\r\n\r\n")
    assert "secret-of-a-test" not in chain.said
