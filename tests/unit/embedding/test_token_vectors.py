import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.calibration import Calibration, calibration_for
from app.config import load_settings
from app.embedding.encoder import Encoder
from app.embedding.token_vectors import TokenVectors, make_codec, read_projection, token_vectors_for
from app.errors import ConfigurationError, EncoderError
from tests.unit.embedding.tiny_model import WIDTH, tiny_model

VOCABULARY, STOP, COMMA = 50, 3, 4
EMPTY, ONE = "", "wing"


def codec(bits: int = 4, dimension: int = 16, width: int = 24, seed: int = 0) -> TokenVectors:
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.5, 2, VOCABULARY)
    weights[[STOP, COMMA]] = 0
    return make_codec(
        projection=np.linalg.qr(rng.normal(size=(width, width)))[0][:, :dimension],
        scale=np.full(dimension, dimension**-0.5),
        levels=np.linspace(-2.5, 2.5, 2**bits),
        query_weights=weights,
        kept=~np.isin(np.arange(VOCABULARY), [STOP, COMMA]),
        weight=0.4,
        depth=50,
        about={},
    )


def text(tokens: int, width: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(tokens, width)).astype(np.float32), rng.integers(0, VOCABULARY, tokens)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def exact(made: TokenVectors, query: tuple[np.ndarray, np.ndarray], passage: tuple[np.ndarray, np.ndarray]) -> float:
    """MaxSim as the paper writes it, over vectors that were never packed: one token after the other."""
    kept = [place for place, token in enumerate(passage[1]) if token not in (STOP, COMMA)] or range(len(passage[1]))
    total = weight = 0.0
    for vector, token in zip(unit(query[0] @ made.projection), query[1], strict=True):
        best = max(float(vector @ unit(passage[0] @ made.projection)[place]) for place in kept)
        total += float(made.query_weights[token]) * best
        weight += float(made.query_weights[token])
    return total / weight


@pytest.mark.parametrize(("bits", "tolerance"), [(8, 0.01), (4, 0.08), (2, 0.5)])
def test_scores_are_those_of_unpacked_vectors_but_for_rounding(bits: int, tolerance: float) -> None:
    made = codec(bits)
    query, passages = text(9, seed=1), [text(n, seed=n) for n in (1, 2, 40, 7, 300)]
    scores = made.score(made.query(*query), [made.pack(*passage) for passage in passages])
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [exact(made, query, passage) for passage in passages], atol=tolerance)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_unpacked_vectors_are_the_nearest_levels_in_place(bits: int) -> None:
    made = codec(bits)
    hidden, tokens = text(30, seed=5)
    kept = ~np.isin(tokens, [STOP, COMMA])
    wanted = unit(hidden @ made.projection)[kept] / made.scale
    nearest = made.levels[np.abs(wanted[:, :, None] - made.levels).argmin(axis=2)] * made.scale
    packed = made.pack(hidden, tokens)
    np.testing.assert_allclose(made.unpack(packed), nearest, atol=1e-6)
    assert len(packed) == 13 + kept.sum() * made.vector_bytes


def test_scoring_is_that_of_the_unpacked_vectors() -> None:
    made = codec()
    query = made.query(*text(6, seed=8))
    packed = [made.pack(*text(n, seed=n)) for n in (3, 50, 1)]
    unpacked = [made.unpack(item) for item in packed]
    wanted = [(query.weights * (query.vectors @ vectors.T).max(axis=1)).sum() for vectors in unpacked]
    np.testing.assert_allclose(made.score(query, packed), wanted, atol=1e-5)


def test_missing_and_foreign_bytes_are_nan_in_their_place() -> None:
    made, other = codec(), codec(seed=1)
    good = made.pack(*text(5))
    newer = good[:2] + b"\x02" + good[3:]
    packed = [None, good, b"", good[:-1], good + b"\0", newer, other.pack(*text(5)), good[:7], good]
    scores = made.score(made.query(*text(4, seed=2)), packed)
    assert [bool(np.isnan(score)) for score in scores] == [item is not good for item in packed]
    assert scores[1] == scores[-1]
    assert [made.unpack(item) is None for item in packed] == [item is not good for item in packed]


@given(data=st.binary(max_size=200), cut=st.integers(0, 60), flip=st.integers(0, 59), value=st.integers(0, 255))
def test_no_bytes_raise(data: bytes, cut: int, flip: int, value: int) -> None:
    made = codec()
    good = made.pack(*text(5))
    hostile = bytearray(good)
    hostile[flip % len(good)] = value
    query = made.query(*text(4, seed=2))
    scores = made.score(query, [data, good[:cut], good[:13] + data, bytes(hostile), good])
    assert scores.shape == (5,)
    assert not np.isinf(scores).any()
    assert np.isfinite(scores[4])


@given(st.integers(1, 40), st.integers(0, 10**6))
def test_any_text_scores_within_bounds(tokens: int, seed: int) -> None:
    made = codec(8)
    scores = made.score(made.query(*text(3, seed=seed)), [made.pack(*text(tokens, seed=seed + 1))])
    assert (np.abs(scores) <= 1.05).all()


def test_no_passages_have_no_scores() -> None:
    made = codec()
    assert made.score(made.query(*text(3)), []).shape == (0,)
    assert np.isnan(made.score(made.query(*text(3)), [None, None])).all()


def test_stop_words_alone_are_kept_and_count() -> None:
    made = codec(8)
    hidden, _ = text(3)
    tokens = np.array([STOP, COMMA, STOP])
    assert len(made.unpack(made.pack(hidden, tokens))) == 3
    query = made.query(hidden, tokens)
    np.testing.assert_allclose(query.weights, 1 / 3)
    np.testing.assert_allclose(made.score(query, [made.pack(hidden, tokens)]), 1, atol=0.02)


def test_no_tokens_at_all_are_like_nothing() -> None:
    made = codec()
    nothing = np.empty((0, 24), np.float32), np.empty(0, np.int64)
    empty, full = made.pack(*nothing), made.pack(*text(4))
    scores = made.score(made.query(*text(3)), [empty, full, empty])
    assert scores[0] == scores[2] == 0
    assert np.isfinite(scores[1])
    assert (made.score(made.query(*nothing), [full, empty]) == 0).all()


def test_token_ids_beyond_the_tables_are_kept_and_count() -> None:
    made = codec()
    hidden, _ = text(2)
    tokens = np.array([VOCABULARY + 5, -1])
    assert len(made.unpack(made.pack(hidden, tokens))) == 2
    np.testing.assert_allclose(made.query(hidden, tokens).weights, 0.5)


def test_vectors_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="another embedding model"):
        codec().pack(*text(3, width=25))
    with pytest.raises(ValueError, match="another embedding model"):
        codec().query(text(3)[0], np.zeros(2, np.int64))


@pytest.mark.parametrize(
    "broken",
    [
        {"levels": np.zeros(3)},
        {"levels": np.zeros(16)},
        {"scale": np.ones(15)},
        {"scale": np.zeros(16)},
        {"projection": np.full((24, 16), np.nan)},
        {"projection": np.zeros(5)},
        {"projection": np.ones((24, 3)), "scale": np.ones(3)},
        {"query_weights": np.full(VOCABULARY, -1.0)},
        {"kept": np.ones(VOCABULARY + 1, bool)},
        {"weight": 1.5},
        {"depth": 0},
    ],
)
def test_arrays_that_do_not_fit_are_refused(broken: dict[str, object]) -> None:
    good = codec()
    arrays = {name: getattr(good, name) for name in ("projection", "scale", "levels", "query_weights", "kept")}
    with pytest.raises(ValueError, match="match each other"):
        make_codec(**{**arrays, "weight": 0.4, "depth": 50, "about": {}, **broken})  # type: ignore[arg-type]


def test_a_projection_is_known_by_what_shapes_the_bytes() -> None:
    assert codec().id == codec().id
    assert len({codec(bits).id for bits in (1, 2, 4, 8)} | {codec(seed=1).id}) == 5


def shipped(name: str) -> Calibration | None:
    return calibration_for(load_settings().embedding, name)


def test_the_shipped_projection_is_for_its_model_in_every_precision() -> None:
    made = token_vectors_for(shipped("all-MiniLM-L6-v2"), 384)
    assert made is not None
    assert token_vectors_for(shipped("all-MiniLM-L6-v2-int8"), 384) is made
    assert (made.width, 0 < made.weight < 1, made.depth >= 10) == (384, True, True)
    assert token_vectors_for(shipped("all-MiniLM-L6-v2"), 768) is None
    assert token_vectors_for(None, 384) is None


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_a_broken_file_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token_projection.npz"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"not a usable token projection.*braid calibrate"):
        read_projection(path)


def test_a_file_without_its_arrays_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "token_projection.npz"
    np.savez(path, about=np.frombuffer(json.dumps({}).encode(), np.uint8))
    with pytest.raises(ConfigurationError, match="projection"):
        read_projection(path)


def test_the_encoder_gives_tokens_in_the_same_inference(minilm: Encoder) -> None:
    made = token_vectors_for(shipped(minilm.name), minilm.dimension)
    assert made is not None
    assert minilm.gives_tokens
    texts = [ONE, EMPTY, "The drag of a flat plate was measured. " * 20, "Interest rates rose in March, again."] * 3
    vectors, packed = minilm.encode_passages_with_tokens(texts, made.pack)
    assert (vectors == minilm.encode_passages(texts)).all()
    vector, hidden, tokens = minilm.encode_query_with_tokens("how is the resistance of plates measured?")
    assert (vector == minilm.encode_query("how is the resistance of plates measured?")).all()
    assert hidden.shape == (len(tokens), 384)
    scores = made.score(made.query(hidden, tokens), packed)
    assert np.isfinite(scores).all()
    assert set(scores.argsort()[-3:]) == {2, 6, 10}
    # packed in a batch of others or alone: padding never gets in
    alone = [minilm.encode_passages_with_tokens([item], made.pack)[1][0] for item in texts[:4]]
    np.testing.assert_allclose(made.score(made.query(hidden, tokens), alone), scores[:4], atol=0.01)
    empty, nothing = minilm.encode_passages_with_tokens([], made.pack)
    assert (empty.shape, nothing) == ((0, 384), [])


def test_a_model_that_pools_has_no_token_vectors(tmp_path: Path, model_folder: Path) -> None:
    folder = tiny_model(tmp_path / "m", model_folder / "tokenizer.json", output="sentence_embedding", pooled=True)
    encoder = Encoder(folder, name="m")
    assert (encoder.gives_tokens, encoder.dimension) == (False, WIDTH)
    with pytest.raises(EncoderError, match="no output per token"):
        encoder.encode_query_with_tokens("a query")
    with pytest.raises(EncoderError, match="no output per token"):
        encoder.encode_passages_with_tokens(["a passage"], lambda hidden, tokens: b"")
