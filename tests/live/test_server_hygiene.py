"""Requests that are made to be misunderstood, too large, too deep or compressed, said to the real server."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator

import pytest

from tests.service import Service, read_all, running_service, status_of

KEY = "the-operators-key-of-these-tests"
JSON_ENDPOINTS = [
    "/v1/search",
    "/v1/answer",
    "/v1/embeddings",
    "/v1/rerank",
    "/v1/feedback",
    "/v1/documents",
]
MAX_BODY = 1_000_000
OK = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def open_service() -> Iterator[Service]:
    """Without a key."""
    with running_service(max_body_bytes=str(MAX_BODY), timeout_ms="2000") as service:
        yield service


@pytest.fixture(scope="module")
def keyed_service() -> Iterator[Service]:
    with running_service(api_key=KEY) as service:
        yield service


def alive(service: Service) -> bool:
    return status_of(service.say(OK)) == 200


def request(*headers: str, line: str = "POST /v1/embeddings HTTP/1.1", body: bytes = b"") -> bytes:
    return "\r\n".join([line, *headers, "", ""]).encode() + body


HOST = "Host: 127.0.0.1"
TYPE = "Content-Type: application/json"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (
            request(HOST, TYPE, "Content-Length: 6", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED),
            400,
        ),
        (request(HOST, TYPE, "Content-Length: 2", "Content-Length: 48", body=b"{}" + SMUGGLED), 400),
        (request(HOST, TYPE, "Content-Length: 2, 48", body=b"{}" + SMUGGLED), 400),
        (request(HOST, TYPE, "Content-Length: +2", body=b"{}" + SMUGGLED), 400),
        (request(HOST, TYPE, "Content-Length: -1", body=SMUGGLED), 400),
        (request(HOST, TYPE, "Content-Length: 0x2", body=b"{}" + SMUGGLED), 400),
        (request(HOST, TYPE, "Content-Length : 2", body=b"{}" + SMUGGLED), 400),
        (request(HOST, TYPE, "Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + SMUGGLED), 501),
        (request(HOST, TYPE, "Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + SMUGGLED), 400),
        (request(HOST, TYPE, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
        (request(HOST, TYPE, "Transfer-Encoding:\x0bchunked", body=b"0\r\n\r\n" + SMUGGLED), 400),
        (
            request(HOST, TYPE, "Transfer-Encoding: chunked", line="POST /v1/embeddings HTTP/1.0", body=b"0\r\n\r\n"),
            400,
        ),
        (request(HOST, TYPE, "X-A: b", " Content-Length: 48", body=SMUGGLED), 400),  # obsolete folding
        (request(HOST, "Host: evil.example", line="GET /v1/models HTTP/1.1"), 400),
        (request(line="GET /v1/models HTTP/1.1"), 400),
        (request(HOST, line="GET http://evil.example/v1/models HTTP/1.1"), 400),
        (request(HOST, line="GET http://127.0.0.1@evil.example/v1/models HTTP/1.1"), 400),
        (request(HOST, line="GET http://[/v1/models HTTP/1.1"), 400),
        (request(HOST, line="GET /v1/models HTTP/1.1 HTTP/1.1"), 400),
        (request(HOST, line="GET /v1/models HTTP/9.9"), 400),
        (request(HOST, line="GET  /v1/models HTTP/1.1"), 400),
        (request(HOST, "Expect: tea", line="GET /healthz HTTP/1.1"), 417),
        (b"GET /v1/models HTTP/1.1\nHost: 127.0.0.1\n\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\nX-A: b\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: a\x00b\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: a\rContent-Length: 5\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n: nameless\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 414),
        (b"A" * 100_000, 414),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\n" * 20, 400),  # TLS to a plain port
        (request(HOST, *(f"X-{number}: a" for number in range(200)), line="GET /healthz HTTP/1.1"), 431),
        (request(HOST, "X-A: " + "a" * 9000, line="GET /healthz HTTP/1.1"), 431),
        (request(HOST, *("X-A: " + "a" * 5000 for _ in range(50)), line="GET /healthz HTTP/1.1"), 431),
    ],
)
def test_what_two_servers_could_understand_differently_is_refused(
    open_service: Service, data: bytes, status: int
) -> None:
    answer = open_service.say(data)
    assert status_of(answer) == status
    assert answer.count(b"HTTP/1.1 ") == 1  # what came behind it was not taken for a request
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Connection: close" in head
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == status
    assert b"evil" not in body
    assert alive(open_service)


def test_a_broken_line_with_a_key_is_not_logged(keyed_service: Service) -> None:
    answer = keyed_service.say(request(HOST, f"Authorization Bearer {KEY}", line="GET /v1/models HTTP/1.1"))
    assert status_of(answer) == 400
    assert KEY.encode() not in answer
    assert KEY not in keyed_service.said
    assert "refused a request from 127.0.0.1: InvalidHeader" in keyed_service.said


@pytest.mark.parametrize(
    "header",
    [
        f"Authorization: Bearer {KEY}\r\nAuthorization: Bearer {KEY}",
        f"Authorization: Bearer wrong\r\nAuthorization: Bearer {KEY}",
        f"Authorization: Bearer wrong, Bearer {KEY}",
        f"HTTP_AUTHORIZATION: Bearer {KEY}",
        f"Http-Authorization: Bearer {KEY}",
        f"X-Forwarded-Authorization: Bearer {KEY}",
        f"Authorization\t: Bearer {KEY}",
        f"Authorization: Bearer {KEY}\x00",
        f"Authorization: Basic {KEY}",
        "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: 127.0.0.1\r\nForwarded: for=127.0.0.1",
        "REMOTE_USER: admin\r\nRemote-User: admin\r\nX-Remote-User: admin",
    ],
)
def test_no_other_header_stands_for_the_key(keyed_service: Service, header: str) -> None:
    answer = keyed_service.say(request(HOST, "Connection: close", header, line="GET /v1/models HTTP/1.1"))
    assert status_of(answer) in {400, 401}
    assert KEY not in keyed_service.said


def test_the_key_itself_is_taken(keyed_service: Service) -> None:
    right = request(HOST, "Connection: close", f"Authorization: Bearer {KEY}", line="GET /v1/models HTTP/1.1")
    assert status_of(keyed_service.say(right)) == 200


@pytest.mark.parametrize("header", ["SCRIPT_NAME: /healthz", "PATH_INFO: /healthz", "Script-Name: /healthz"])
def test_headers_do_not_change_the_path(keyed_service: Service, header: str) -> None:
    data = request(HOST, "Connection: close", header, line="GET /v1/models HTTP/1.1")
    assert status_of(keyed_service.say(data)) in {400, 401}


def test_old_and_absolute_requests_are_served(open_service: Service) -> None:
    answer = open_service.say(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert status_of(answer) == 200
    assert b"Connection: close" in answer
    answer = open_service.say(
        request("Host: 127.0.0.1:80", "Connection: close", line="GET http://127.0.0.1:80/healthz HTTP/1.1")
    )
    assert status_of(answer) == 200


def test_requests_behind_each_other_are_answered_in_their_order(open_service: Service) -> None:
    ask = b'{"input": "a"}'
    post = request(HOST, TYPE, f"Content-Length: {len(ask)}", body=ask)
    answer = open_service.say(b"\r\n" + post + OK.replace(b"Connection: close\r\n", b"") + post + OK)
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    # a byte at a time is the same
    with open_service.connect() as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in post + OK:
            raw.sendall(bytes([byte]))
        assert read_all(raw).count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize("path", JSON_ENDPOINTS)
def test_a_body_that_is_too_large_is_refused_unread(open_service: Service, path: str) -> None:
    line = f"POST {path} HTTP/1.1"
    # nothing of it is sent: it was refused by its length alone
    answer = open_service.say(request(HOST, TYPE, "Content-Length: 99999999", line=line))
    assert status_of(answer) == 413
    with open_service.connect() as raw:
        raw.sendall(request(HOST, TYPE, "Transfer-Encoding: chunked", line=line))
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        sent = 0
        try:
            while sent < 200_000_000:  # far more than the service may take
                raw.sendall(chunk)
                sent += len(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert sent < 100_000_000
    assert alive(open_service)


def test_the_answer_to_an_endless_body_arrives(open_service: Service) -> None:
    with open_service.connect() as raw:
        raw.sendall(request(HOST, TYPE, "Transfer-Encoding: chunked"))
        for _ in range(MAX_BODY // 65536 + 1):
            raw.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
        assert status_of(read_all(raw)) == 413


@pytest.mark.parametrize(
    "chunks",
    [
        b"2\r\n{}\r\n0\r\nAuthorization: Bearer x\r\n\r\n",
        b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n",
        b"zz\r\n{}\r\n0\r\n\r\n",
        b"-2\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}XX0\r\n\r\n",
        b"2;a\rb\r\n{}\r\n0\r\n\r\n",
        b"1" * 10_000,
    ],
)
def test_broken_chunks_are_the_callers_mistake(open_service: Service, chunks: bytes) -> None:
    data = request(HOST, TYPE, "Transfer-Encoding: chunked", body=chunks + SMUGGLED)
    answer = open_service.say(data)
    assert status_of(answer) == 400
    assert answer.count(b"HTTP/1.1 ") == 1
    assert "Traceback" not in open_service.said, open_service.said


def say_json(service: Service, path: str, body: bytes, *headers: str) -> tuple[int, bytes]:
    line = f"POST {path} HTTP/1.1"
    answer = service.say(
        request(HOST, TYPE, "Connection: close", *headers, f"Content-Length: {len(body)}", line=line, body=body)
    )
    return status_of(answer), answer


DEEP = 100_000
FIELDS = {
    "/v1/search": "query",
    "/v1/answer": "query",
    "/v1/embeddings": "input",
    "/v1/rerank": "documents",
    "/v1/feedback": "query_id",
    "/v1/documents": "metadata",
}


@pytest.mark.parametrize("path", JSON_ENDPOINTS)
def test_json_that_is_no_json_is_refused(open_service: Service, path: str) -> None:
    field = FIELDS[path].encode()
    for body in (
        b"[" * DEEP,
        b"[" * DEEP + b"]" * DEEP,
        b'{"a":' * DEEP,
        b'{"' + field + b'":' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"unknown":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
        b'{"' + field + b'": "\xff\xfe"}',
        b'{"' + field + b'": "\xed\xa0\x80"}',  # half a character, as UTF-8
        b'{"' + field + b'": "\\ud800"}',
        b'{"' + field + b'": NaN}',
        b'{"' + field + b'": 1e999}',
        b'{"' + field + b'": ' + b"9" * 100_000 + b"}",
        b"\xef\xbb\xbf{}",
        b"{} {}",
        b"",
        b"null",
        b"7",
    ):
        status, answer = say_json(open_service, path, body)
        assert status in {400, 422}, (path, body[:60], answer[:300])
        assert len(answer) < 4000
    assert "Traceback" not in open_service.said, open_service.said
    assert alive(open_service)


@pytest.mark.parametrize(
    "body",
    [
        b'{"query": "a", "fusion": {"method": "linear", "alpha": NaN}}',
        b'{"query": "a", "fusion": {"method": "linear", "alpha": Infinity}}',
        b'{"query": "a", "size": 1e400}',
        b'{"query": "a", "size": 99999999999999999999999999}',
        b'{"query": "a", "timeout_ms": -1}',
        b'{"query": "a", "from": 1e308}',
    ],
)
def test_numbers_that_are_none_are_refused(open_service: Service, body: bytes) -> None:
    assert say_json(open_service, "/v1/search", body)[0] in {400, 422}


def test_of_a_field_that_is_there_twice_the_last_one_counts(open_service: Service) -> None:
    status, _ = say_json(open_service, "/v1/embeddings", b'{"input": "a", "input": 7}')
    assert status == 422
    status, _ = say_json(open_service, "/v1/embeddings", b'{"input": 7, "input": "a"}')
    assert status == 200


@pytest.mark.parametrize("path", JSON_ENDPOINTS)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "GZIP"])
def test_compressed_bodies_are_not_read(open_service: Service, path: str, encoding: str) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    status, answer = say_json(open_service, path, bomb, f"Content-Encoding: {encoding}")
    assert status == 415
    assert b"uncompressed" in answer


def test_answers_are_in_no_shared_cache_and_say_so(open_service: Service) -> None:
    _, found = say_json(open_service, "/v1/embeddings", b'{"input": "a"}')
    _, wrong = say_json(open_service, "/v1/embeddings", b"[]")
    gone = open_service.say(request(HOST, "Connection: close", line="GET /v1/nothing HTTP/1.1"))
    for answer in (found, wrong, gone):
        head = answer.partition(b"\r\n\r\n")[0]
        assert b"Cache-Control: no-store" in head
        assert b"X-Content-Type-Options: nosniff" in head
        assert b"default-src 'none'" in head
        assert b"Referrer-Policy: no-referrer" in head
        assert b"X-Request-ID: " in head
