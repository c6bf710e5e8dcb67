"""The vectors that are kept of a model elsewhere: when they are kept, compared and kept anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.config import Settings
from app.embedding.remote import RemoteEncoder
from app.embedding.text_encoder import load_text_encoder
from app.errors import EncoderError, StoreNotReady
from app.passage import Passage
from app.serving.reference_check import ReferenceCheck
from app.store import reference_vectors
from app.store.bulk import bulk_index
from app.store.client import Cluster
from app.store.documents import refresh
from tests.unit.embedding.embedding_server import EmbeddingServer, embedding_server
from tests.writers.encoder import WordEncoder

MODEL = "all-MiniLM-L6-v2"


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with embedding_server() as found:
        found.vectors_of = good
        yield found


def good(texts: list[str]) -> list[list[float]]:
    rows: list[list[float]] = WordEncoder(384).encode_passages(texts).tolist()
    return rows


def other(texts: list[str]) -> list[list[float]]:
    return good([f"another {text}" for text in texts])


@pytest.fixture
def make_encoder(server: EmbeddingServer, store_settings: Settings, model_folder: Path) -> Callable[[], RemoteEncoder]:
    def make() -> RemoteEncoder:
        settings = store_settings.with_values(embedding_url=server.url, embedding_path=model_folder)
        found = load_text_encoder(settings, indexing=True)
        assert isinstance(found, RemoteEncoder)
        return found

    return make


def test_before_the_first_index_they_are_kept_and_kept_anew(
    cluster: Cluster, server: EmbeddingServer, make_encoder: Callable[[], RemoteEncoder]
) -> None:
    encoder = make_encoder()
    check = ReferenceCheck(cluster, encoder)
    assert "no reference vectors" in (check.refusal() or "")
    check.settle()
    assert check.refusal() is None
    assert encoder.dimension == 384
    server.vectors_of = other
    with pytest.raises(EncoderError, match="other vectors"):
        encoder.encode_passages(["a text"])
    assert "other vectors" in (check.refusal() or "")
    ReferenceCheck(cluster, make_encoder()).settle()  # nothing was made with the first ones
    assert check.refusal() is None
    assert encoder.encode_passages(["a text"]).shape == (1, 384)


def test_with_passages_only_the_same_model_is_taken(
    store: Cluster,
    server: EmbeddingServer,
    make_encoder: Callable[[], RemoteEncoder],
    make_passage: Callable[..., Passage],
) -> None:
    plain = make_passage("a")
    made = make_encoder().encode_passages([plain.embedding_text()])[0]
    assert bulk_index(store, [make_passage("a", embedding=tuple(made.tolist()))]).indexed == 1
    refresh(store)
    server.vectors_of = other
    with pytest.raises(StoreNotReady, match="a median cosine of"):
        ReferenceCheck(store, make_encoder()).settle()
    server.vectors_of = lambda texts: [[1.0, 2.0] for _ in texts]
    with pytest.raises(StoreNotReady, match="2 dimensions, not 384"):
        ReferenceCheck(store, make_encoder()).settle()
    assert reference_vectors.read(store, MODEL) is None
    server.vectors_of = good
    ReferenceCheck(store, make_encoder()).settle()
    server.vectors_of = other
    with pytest.raises(EncoderError, match="other vectors than those kept"):
        ReferenceCheck(store, make_encoder()).settle()


def test_what_is_no_vectors_is_named(cluster: Cluster, make_encoder: Callable[[], RemoteEncoder]) -> None:
    name = reference_vectors.template_name(MODEL)
    for vectors in ([], ["not base64"], ["AAAA"], ["AAAAAA==", "AAAAAAAAAAA="], 5):
        cluster.request("PUT", f"/_component_template/{name}", body={"template": {}, "_meta": {"vectors": vectors}})
        with pytest.raises(StoreNotReady, match=f"{name} holds no reference vectors"):
            ReferenceCheck(cluster, make_encoder()).refusal()
