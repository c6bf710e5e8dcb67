"""Cross-encoders as rerankers: a real small model, in process and behind the real server; servers that misbehave."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from werkzeug.serving import make_server

from app.config import load_settings
from app.deadline import Deadline
from app.errors import ConfigurationError, DeadlineExceeded, Overloaded, RerankerError, RerankerUnavailable
from app.search.cross_encoding import LocalCrossEncoder, RemoteCrossEncoder
from app.search.reranking import Subject
from reranker.config import load_settings as server_settings
from reranker.cross_encoder import CrossEncoder
from reranker.scheduler import MicroBatcher
from reranker.server import create_app
from tests.reranker_model import write_cross_encoder
from tests.unit.generation.passages import hit

QUERY = "blocked cooling fan"
TEXTS = ["apple cake with cinnamon", "the cooling fan is blocked", "a fan", "board meeting"]
BOUND = {"fused": [0.0, 1.0], "p": [0.2, 0.9]}


def long() -> Deadline:
    return Deadline.after(30_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings: dict[str, object] = {"weight": 0.7, "bound": BOUND}
    return write_cross_encoder(tmp_path_factory.mktemp("cross-encoder") / "tiny", settings=settings)


@pytest.fixture(scope="module")
def local(folder: Path) -> Iterator[LocalCrossEncoder]:
    found = LocalCrossEncoder(load_settings(reranker_model=folder, reranker_provider="cpu").reranker)
    yield found
    found.close()


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    model = CrossEncoder(folder, provider="cpu")
    batcher = MicroBatcher(model)
    http = make_server("127.0.0.1", 0, create_app(server_settings(model=folder, key="k" * 16), model, batcher), True)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    thread.join()
    batcher.close()


def subjects(texts: list[str]) -> list[Subject]:
    return [Subject(hit(t, position=n)) for n, t in enumerate(texts)]


def test_it_scores_in_blocks_with_what_was_measured_for_its_model(local: LocalCrossEncoder) -> None:
    assert (local.name, local.weight, local.depth) == ("cross-encoder/tiny-cross-encoder", 0.7, 20)
    scoring = local.begin(QUERY, None)
    assert scoring.blocks(subjects(TEXTS * 3)) == [5, 5, 2]
    scores = scoring.score(subjects(TEXTS), long())
    assert int(np.argmax(scores)) == 1
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scoring.upper_bound(0.5) == pytest.approx(0.55)


def test_time_that_is_too_short_is_said_at_once(local: LocalCrossEncoder) -> None:
    with pytest.raises((Overloaded, DeadlineExceeded)):
        local.score_texts(QUERY, ["word " * 300] * 2000, Deadline.after(20))


def test_a_folder_that_holds_no_cross_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"BRAID_RERANKER_MODEL: .*model\.onnx"):
        LocalCrossEncoder(load_settings(reranker_model=tmp_path).reranker)


def test_the_server_gives_what_the_model_in_process_gives(server: str, local: LocalCrossEncoder) -> None:
    remote = RemoteCrossEncoder(load_settings(reranker_url=server, reranker_key="k" * 16).reranker)
    there, here = remote.score_texts(QUERY, TEXTS, long()), local.score_texts(QUERY, TEXTS, long())
    assert there.scores == pytest.approx(here.scores, abs=1e-5)
    assert there.truncated == here.truncated == 0
    for reranker in (remote, local):
        assert reranker.score_texts(QUERY, TEXTS, long(), max_tokens=1).truncated == len(TEXTS)
    assert (remote.name, remote.weight) == ("cross-encoder/tiny-cross-encoder", 0.7)
    assert remote.upper_bound(0.5) == pytest.approx(0.55)
    remote.close()


def test_a_wrong_key_is_an_error_and_no_crash(server: str) -> None:
    remote = RemoteCrossEncoder(load_settings(reranker_url=server, reranker_key="wrong").reranker)
    with pytest.raises(RerankerError, match="401"):
        remote.score_texts(QUERY, TEXTS, long())
    remote.close()


Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def odd_server() -> Iterator[Callable[[Answer], RemoteCrossEncoder]]:
    """A server on loopback that answers as a test tells it, and the client of it."""
    opened: list[tuple[ThreadingHTTPServer, threading.Thread, RemoteCrossEncoder]] = []

    def start(answer: Answer) -> RemoteCrossEncoder:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_error(404)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                answer(self)

            def log_message(self, *arguments: object) -> None:
                pass

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        client = RemoteCrossEncoder(load_settings(reranker_url=f"http://127.0.0.1:{http.server_port}/").reranker)
        opened.append((http, thread, client))
        return client

    yield start
    for http, thread, client in opened:
        client.close()
        http.shutdown()
        thread.join()
        http.server_close()


def reply(body: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def results(*scores: Any) -> bytes:
    return json.dumps({"results": [{"index": n, "relevance_score": score} for n, score in enumerate(scores)]}).encode()


def test_another_makers_server_is_understood(odd_server: Callable[[Answer], RemoteCrossEncoder]) -> None:
    client = odd_server(reply(results(0.1, 0.9)))
    assert client.score_texts(QUERY, TEXTS[:2], long()).scores == pytest.approx([0.1, 0.9])
    assert (client.name, client.weight, client.upper_bound(0.3)) == ("cross-encoder/remote", 0.5, 1.0)


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        b'{"results": 5}',
        results(0.1),
        results(0.1, None),
        results(0.1, "x"),
        b'{"results": [{"index": 7, "relevance_score": 1}]}',
        b'{"results": [{"index": true, "relevance_score": 1}, {"index": 0, "relevance_score": 1e999}]}',
    ],
)
def test_garbage_is_an_error_that_quotes_nothing(
    odd_server: Callable[[Answer], RemoteCrossEncoder], body: bytes
) -> None:
    with pytest.raises(RerankerError) as caught:
        odd_server(reply(body)).score_texts(QUERY, TEXTS[:2], long())
    assert "fan" not in caught.value.detail


def test_a_full_queue_passes_on_when_to_come_back(odd_server: Callable[[Answer], RemoteCrossEncoder]) -> None:
    with pytest.raises(Overloaded) as caught:
        odd_server(reply(b"{}", 429, Retry_After="7")).score_texts(QUERY, TEXTS, long())
    assert caught.value.retry_after_s == 7


def test_a_server_that_hangs_costs_no_more_than_its_time_and_is_left_alone_soon(
    odd_server: Callable[[Answer], RemoteCrossEncoder],
) -> None:
    free = threading.Event()
    client = odd_server(lambda handler: (free.wait(20), handler.close_connection)[0] and None)
    try:
        for _ in range(3):
            with pytest.raises(DeadlineExceeded):
                client.score_texts(QUERY, TEXTS, Deadline.after(150))
        with pytest.raises(RerankerUnavailable, match="a moment ago"):
            client.score_texts(QUERY, TEXTS, long())
    finally:
        free.set()


def test_a_server_that_comes_back_is_used_again(folder: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    client = RemoteCrossEncoder(load_settings(reranker_url=f"http://127.0.0.1:{port}").reranker)
    with pytest.raises(RerankerUnavailable):
        client.score_texts(QUERY, TEXTS, long())
    model = CrossEncoder(folder, provider="cpu")
    batcher = MicroBatcher(model)
    http = make_server("127.0.0.1", port, create_app(server_settings(model=folder), model, batcher), True)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    try:
        until = time.monotonic() + 20
        while True:
            try:
                found = client.score_texts(QUERY, TEXTS, long())
                break
            except RerankerUnavailable:
                assert time.monotonic() < until
                time.sleep(0.1)
        assert int(np.argmax(found.scores)) == 1
    finally:
        client.close()
        http.shutdown()
        thread.join()
        batcher.close()
