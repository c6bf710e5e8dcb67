"""Our vectors against those of sentence-transformers on torch (tests/data/embedding/make_reference.py)."""

import json
from pathlib import Path

import numpy as np
import pytest

from app.embedding.encoder import Encoder

DATA = Path(__file__).resolve().parents[2] / "data" / "embedding"
TEXTS = json.loads((DATA / "texts.json").read_text(encoding="utf-8"))


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
