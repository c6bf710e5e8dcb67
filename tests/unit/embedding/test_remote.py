"""An encoder behind OpenAI's API: what it is sent, what a bad server costs, and that no other model's vectors pass."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.config import load_settings
from app.deadline import Deadline
from app.dev.ports import ReservedPorts
from app.embedding import remote
from app.embedding.remote import REFERENCE_TEXTS, RemoteEncoder
from app.embedding.text_encoder import load_text_encoder
from app.errors import ConfigurationError, EncoderError, EncoderUnavailable
from app.search.rerankers import load_reranker
from tests.unit.embedding.embedding_server import Answer, EmbeddingServer, embedding_server, send, vectors_of
from tests.writers.encoder import DIMENSION

WORDS = {"embedding_model": "words", "embedding_query_prefix": "none", "embedding_passage_prefix": "none"}
TEXTS = ["the cooling fan is blocked", "apple cake"]
Client = Callable[..., RemoteEncoder]


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with embedding_server() as found:
        yield found


@pytest.fixture
def client(server: EmbeddingServer, model_folder: Path) -> Iterator[Client]:
    opened: list[RemoteEncoder] = []

    def make(*, indexing: bool = False, **settings: Any) -> RemoteEncoder:
        given = {"embedding_url": server.url, "embedding_path": model_folder, **WORDS, **settings}
        found = load_text_encoder(load_settings(**given), indexing=indexing)
        assert isinstance(found, RemoteEncoder)
        opened.append(found)
        return found

    yield make
    for encoder in opened:
        encoder.close()


def unit(texts: list[str]) -> np.ndarray:
    rows = np.array(vectors_of(texts))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def reference() -> np.ndarray:
    return unit(list(REFERENCE_TEXTS)).astype(np.float32)


def shortly() -> Deadline:
    return Deadline.after(300)


def test_vectors_are_of_unit_length_and_in_order(server: EmbeddingServer, client: Client) -> None:
    encoder = client(embedding_key="secret")
    texts = [f"text {place}" for place in range(70)]
    assert encoder.encode_passages(texts) == pytest.approx(unit(texts), abs=1e-6)
    assert encoder.encode_query("fan") == pytest.approx(unit(["fan"])[0], abs=1e-6)
    assert [len(body["input"]) for body in server.asked] == [32, 32, 6, 1]
    assert {(body["model"], body["encoding_format"], "input_type" in body) for body in server.asked} == {
        ("words", "float", False)
    }
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert (encoder.name, encoder.dimension, encoder.gives_tokens) == ("words", DIMENSION, False)
    assert encoder.encode_passages([]).shape == (0, DIMENSION)


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/", "/v1/embeddings"])
def test_the_address_may_name_the_version_or_the_endpoint(server: EmbeddingServer, client: Client, tail: str) -> None:
    assert client(embedding_url=server.url + tail).encode_query("fan").shape == (DIMENSION,)


def test_prefixes_are_the_settings_or_the_models_own(server: EmbeddingServer, client: Client) -> None:
    e5 = client(embedding_model="e5-small-v2", embedding_query_prefix=None, embedding_passage_prefix="p: ")
    e5.encode_query("fan")
    e5.encode_passages(["fan"])
    assert server.texts == ["query: fan", "p: fan"]
    server.asked.clear()
    unset = {"embedding_query_prefix": None, "embedding_passage_prefix": None}
    told = client(embedding_model="e5-small-v2", embedding_send_input_type=True, **unset)
    told.encode_query("fan")
    told.encode_passages(["fan"])
    assert [(body["input"], body["input_type"]) for body in server.asked] == [(["fan"], "query"), (["fan"], "passage")]
    with pytest.raises(ConfigurationError, match=r"'words' was trained with: set BRAID_EMBEDDING_QUERY_PREFIX and"):
        client(embedding_path=None, **unset)


def test_texts_are_cut_to_what_the_model_reads(server: EmbeddingServer, client: Client) -> None:
    encoder = client(embedding_max_tokens=16)
    encoder.encode_passages(["word " * 10_000, "short", "\ud800 lone"])
    assert server.texts == [" ".join(["word"] * 14), "short", "\ufffd lone"]


def test_there_are_no_token_vectors_and_no_late_interaction(server: EmbeddingServer, client: Client) -> None:
    encoder = client()
    with pytest.raises(EncoderError, match="late interaction needs a model in the service"):
        encoder.encode_query_with_tokens("fan")
    with pytest.raises(EncoderError, match="late interaction"):
        encoder.encode_passages_with_tokens(["fan"], lambda hidden, ids: b"")
    assert load_reranker(load_settings(embedding_model="all-MiniLM-L6-v2"), encoder) is None
    assert server.asked == []


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    given = {"embedding_url": "http://127.0.0.1:9"}
    with pytest.raises(ConfigurationError, match=r"BRAID_EMBEDDING_PATH=.*no tokenizer\.json"):
        load_text_encoder(load_settings(**given, embedding_path=tmp_path))
    with pytest.raises(ConfigurationError, match="braid models fetch"):
        load_text_encoder(load_settings(**given, cache_dir=tmp_path))


def embeddings(*rows: object) -> bytes:
    data = [{"index": place, "embedding": row} for place, row in enumerate(rows)]
    return json.dumps({"data": data}).encode()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"not json", "invalid JSON"),
        (b"[]", "no list of embeddings"),
        (b'{"data": 5}', "no list of embeddings"),
        (b'{"data": [{"index": true, "embedding": [1]}, {"index": 0, "embedding": [1]}]}', "no list of embeddings"),
        (b'{"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]}', "no list of embeddings"),
        (b'{"data": [{"index": 7, "embedding": [1]}]}', "no list of embeddings"),
        (embeddings([1.0, 2.0]), "1 vectors for 2 texts"),
        (embeddings([1.0, 2.0], [1.0, 2.0], [1.0, 2.0]), "no list of embeddings"),
        (embeddings([1.0, 2.0], [1.0]), "vectors of 1 and of 2 dimensions"),
        (embeddings([1.0, None], [1.0, 2.0]), "not a list of numbers"),
        (embeddings([1.0, "2"], [1.0, 2.0]), "not a list of numbers"),
        (embeddings([[1.0]], [[2.0]]), "not a list of numbers"),
        (embeddings([], []), "not a list of numbers"),
        (embeddings("AACAPw==", "AACAPw=="), "not a list of numbers"),
        (embeddings([True, False], [1.0, 2.0]), "not a list of numbers"),
        (embeddings([float("nan"), 1.0], [1.0, 2.0]), "invalid JSON"),
        (embeddings([1e200, 1e200], [1.0, 2.0]), "not finite or is zero"),
        (embeddings([0.0, 0.0], [1.0, 2.0]), "not finite or is zero"),
    ],
)
def test_garbage_is_an_error_that_quotes_nothing(
    server: EmbeddingServer, client: Client, body: bytes, said: str
) -> None:
    server.answer = lambda handler, _: send(handler, body)
    with pytest.raises(EncoderError, match=said) as caught:
        client().encode_passages(TEXTS)
    assert "fan" not in caught.value.detail
    assert not isinstance(caught.value, EncoderUnavailable)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "BRAID_EMBEDDING_KEY"),
        (404, "BRAID_EMBEDDING_MODEL"),
        (413, "BRAID_EMBEDDING_MAX_TOKENS"),
        (500, "see its log"),
        (302, "answered 302"),
    ],
)
def test_a_refusal_names_the_setting(server: EmbeddingServer, client: Client, status: int, said: str) -> None:
    server.answer = lambda handler, _: send(handler, {"error": "the cooling fan"}, status, Location="/elsewhere")
    with pytest.raises(EncoderError, match=said) as caught:
        client(indexing=True).encode_passages(TEXTS)
    assert "fan" not in caught.value.detail
    assert len(server.asked) == 1


def test_an_answer_without_end_is_not_read_to_its_end(
    server: EmbeddingServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_LARGEST_ANSWER", 1024**2)
    sent = 0

    def pour(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                sent += handler.wfile.write(b" " * 65536)
        except OSError:
            return

    server.answer = pour
    with pytest.raises(EncoderError, match="more than 1 MiB"):
        client().encode_query("fan")
    assert sent < 100 * 1024**2


def drip(ended: threading.Event) -> Answer:
    """A byte now and then: each read ends in time, the answer never does."""

    def answer(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while not ended.wait(0.05):
                handler.wfile.write(b" ")
                handler.wfile.flush()
        except OSError:
            return

    return answer


def hang(ended: threading.Event) -> Answer:
    return lambda handler, _: ended.wait(60) and None


@pytest.mark.parametrize("slow", [drip, hang])
def test_a_slow_server_costs_its_time_and_is_left_alone_soon(
    server: EmbeddingServer, client: Client, slow: Callable[[threading.Event], Answer]
) -> None:
    ended = threading.Event()
    server.answer = slow(ended)
    encoder = client()
    try:
        for _ in range(3):
            with pytest.raises(EncoderUnavailable, match="did not answer within"):
                encoder.within(shortly()).encode_query("fan")
        with pytest.raises(EncoderUnavailable, match="a moment ago"):
            encoder.encode_query("fan")
    finally:
        ended.set()


def test_without_time_nothing_is_sent(server: EmbeddingServer, client: Client) -> None:
    with pytest.raises(EncoderUnavailable, match="no time was left"):
        client().within(Deadline.after(0)).encode_query("fan")
    assert server.asked == []


def test_indexing_waits_for_a_server_that_is_away_or_busy(model_folder: Path) -> None:
    with ReservedPorts(1) as reserved:
        port = reserved.numbers[0]
    settings = load_settings(embedding_url=f"http://127.0.0.1:{port}", embedding_path=model_folder, **WORDS)
    with pytest.raises(EncoderUnavailable, match="BRAID_EMBEDDING_URL"):
        load_text_encoder(settings).encode_query("fan")
    encoder = load_text_encoder(settings, indexing=True)
    found: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: found.append(encoder.encode_passages(TEXTS)))
    thread.start()
    with embedding_server(port, busy=2) as server:
        thread.join()
    assert found[0] == pytest.approx(unit(TEXTS), abs=1e-6)
    assert len(server.asked) == 3


def test_waiting_ends_with_the_deadline(client: Client) -> None:
    encoder = client(indexing=True, embedding_url="http://127.0.0.1:9").within(Deadline.after(600))
    begun = time.monotonic()
    with pytest.raises(EncoderUnavailable):
        encoder.encode_passages(TEXTS)
    assert time.monotonic() - begun < remote._PATIENCE_S / 2


def other_model(texts: list[str]) -> list[list[float]]:
    return vectors_of(texts, "another model: ")


def test_another_model_is_found_by_queries_and_left_alone_until_it_is_the_old_one_again(
    server: EmbeddingServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = client()
    encoder.expect(reference())
    encoder.encode_query("fan")
    assert len(server.asked) == 2  # the reference texts, once
    encoder.encode_query("fan")
    assert len(server.asked) == 3
    server.vectors_of = other_model
    assert encoder.encode_query("fan").shape == (DIMENSION,)  # a comparison holds for a minute
    monkeypatch.setattr(remote, "_TRUSTED_S", 0.0)
    for call in (lambda: encoder.encode_query("fan"), lambda: encoder.encode_passages(["fan"]), encoder.check):
        with pytest.raises(EncoderError, match=r"other vectors than those kept for 'words' \(a cosine of"):
            call()
    assert encoder.problem is not None
    server.vectors_of = vectors_of
    monkeypatch.setattr(remote, "_RETRIED_S", 0.0)
    assert encoder.encode_query("fan") == pytest.approx(unit(["fan"])[0], abs=1e-6)
    assert encoder.problem is None


def test_while_indexing_each_batch_is_compared(server: EmbeddingServer, client: Client) -> None:
    encoder = client(indexing=True, embedding_passage_prefix="p: ")
    kept = encoder.encode_reference()
    encoder.expect(kept)
    texts = [f"text {place}" for place in range(40)]
    prefixed = [f"p: {text}" for text in texts]
    assert encoder.within(Deadline.after(60_000)).encode_passages(texts) == pytest.approx(unit(prefixed), abs=1e-6)
    assert [body["input"][-1] for body in server.asked[1:]] == [f"p: {REFERENCE_TEXTS[0]}"] * 2
    server.vectors_of = other_model
    with pytest.raises(EncoderError, match="another model, precision or prompt"):
        encoder.encode_passages(["fan"])


def test_a_model_of_other_dimensions_is_named(server: EmbeddingServer, client: Client) -> None:
    encoder = client(indexing=True)
    assert encoder.dimension == DIMENSION
    server.vectors_of = lambda texts: [[1.0, 2.0] for _ in texts]
    with pytest.raises(EncoderError, match=r"2 dimensions, not 8"):
        encoder.encode_passages(TEXTS)


def test_the_kept_vectors_tell_the_dimension_without_the_server(client: Client) -> None:
    encoder = client(embedding_url="http://127.0.0.1:9")
    encoder.expect(np.eye(4, 12, dtype=np.float32))
    assert encoder.dimension == 12


def test_many_threads_compare_once(server: EmbeddingServer, client: Client) -> None:
    encoder = client()
    encoder.expect(reference())
    threads = [threading.Thread(target=encoder.encode_query, args=("fan",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.texts.count(REFERENCE_TEXTS[1]) == 1
