import threading
import time
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from app.embedding.encoder import Encoder
from app.embedding.model_folder import Prefixes
from app.errors import ConfigurationError, EncoderError
from tests.unit.embedding.tiny_model import VOCABULARY, WIDTH, tiny_model

WORDS = ["the", "drag", "of", "a", "flat", "plate", "in", "air", "was", "measured", "by", "two", "engineers"]

MIXED = [
    "😀🚀👩‍👩‍👧‍👦🎉",
    "Der Zug 列車 поезд قطار train 🚆 fährt 出発 отправляется",
    "English, Deutsch, Français, Ελληνικά, Русский, العربية, עברית, हिन्दी, ไทย, 한국어, 日本語, 中文 " * 25,
    "\ud800 lone, \x00 zero, ﷽ one letter of four words",
]


def passage(number: int, words: int = 170) -> str:
    return " ".join(WORDS[(number + i * i) % len(WORDS)] for i in range(words))


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    return float(left @ right)


def test_shapes_and_unit_length(minilm: Encoder) -> None:
    vectors = minilm.encode_passages([passage(i, 5 + 20 * i) for i in range(12)])
    assert vectors.shape == (12, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert minilm.encode_query("flat plate").shape == (384,)
    assert (minilm.name, minilm.dimension, minilm.max_tokens, minilm.provider) == ("all-MiniLM-L6-v2", 384, 256, "cpu")


def test_no_texts_give_no_vectors(minilm: Encoder) -> None:
    assert minilm.encode_passages([]).shape == (0, 384)
    assert minilm.encode_queries([]).shape == (0, 384)


def test_batches_by_length_come_back_in_order(minilm: Encoder) -> None:
    texts = [passage(i, 1 + (i * 37) % 220) for i in range(40)]
    alone = np.stack([minilm.encode_query(text) for text in texts])
    np.testing.assert_allclose(minilm.encode_passages(texts), alone, atol=1e-5)
    np.testing.assert_allclose(minilm.encode_queries(texts), alone, atol=1e-5)


def test_text_past_the_limit_does_not_count(minilm: Encoder) -> None:
    long = " ".join(["plate"] * 254)
    cut = minilm.encode_query(long + " entirely different matter " * 50)
    np.testing.assert_allclose(cut, minilm.encode_query(long), atol=1e-6)
    # and text past the 128 tokens of the published tokenizer.json does
    assert cosine(minilm.encode_query(passage(0, 120) + " volcano" * 60), minilm.encode_query(passage(0, 120))) < 0.99


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(), max_size=60))
def test_any_text_has_a_finite_unit_vector(minilm: Encoder, text: str) -> None:
    assert np.linalg.norm(minilm.encode_query(text)) == pytest.approx(1, abs=1e-5)
    assert all(0 <= start < end <= len(text) for start, end in minilm.token_offsets(text))


@pytest.mark.parametrize("text", ["", " ", "\x00", "\ud800 lone", "\udfff\ud800", "x" * 5000, "\u200b"])
def test_odd_text_does_not_crash(minilm: Encoder, text: str) -> None:
    assert np.isfinite(minilm.encode_query(text)).all()
    assert np.isfinite(minilm.encode_passages([text, "plain"])).all()


def test_offsets_are_in_characters_of_the_text(minilm: Encoder) -> None:
    text = "Naïve 😀 日本, un\ud800believable!"  # the lone surrogate is dropped, places after it hold
    found = [text[start:end] for start, end in minilm.token_offsets(text)]
    assert found == ["Naïve", "😀", "日", "本", ",", "un\ud800believable", "!"]
    assert minilm.token_offsets("") == []


def test_offsets_cover_the_whole_of_a_long_text(minilm: Encoder) -> None:
    text = passage(3, 20_000)
    offsets = minilm.token_offsets(text)
    assert len(offsets) == 20_000
    assert offsets[-1][1] == len(text)


def test_a_query_overtakes_a_running_ingest(minilm: Encoder) -> None:
    """No query waits for the passages that are queued, only (by sharing the cores) for the batch that runs."""
    texts = [passage(i) for i in range(120)]
    batches = -(-len(texts) * 172 // minilm._budget)
    finished: list[float] = []

    def ingest() -> None:
        minilm.encode_passages(texts)
        finished.append(time.perf_counter())

    worker = threading.Thread(target=ingest)
    began = time.perf_counter()
    worker.start()
    waits = []
    for _ in range(10):
        start = time.perf_counter()
        minilm.encode_query("what was the drag of a flat plate?")
        waits.append(time.perf_counter() - start)
    answered = time.perf_counter()
    worker.join()
    assert answered < finished[0], "the queries waited for the ingest"
    assert np.median(waits) < (finished[0] - began) / batches, "a query took longer than one batch"


def test_threads_share_one_encoder(minilm: Encoder) -> None:
    texts = [passage(i, 30) for i in range(16)]
    expected = minilm.encode_passages(texts)
    found: dict[int, np.ndarray] = {}

    def work(number: int) -> None:
        found[number] = (
            minilm.encode_passages(texts) if number % 2 else np.stack([minilm.encode_query(t) for t in texts])
        )

    workers = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 6
    for vectors in found.values():
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "bge-small-en-v1.5"])
def test_an_int8_vector_does_not_depend_on_its_neighbours(load_model, name: str) -> None:
    encoder = load_model(name, "int8")
    texts = [passage(i, 1 + (i * 37) % 220) for i in range(12)] + MIXED
    alone = np.stack([encoder.encode_passages([text])[0] for text in texts])
    np.testing.assert_array_equal(encoder.encode_passages(texts), alone)
    np.testing.assert_array_equal(encoder.encode_passages(texts[::-1])[::-1], alone)
    made, _ = encoder.encode_passages_with_tokens(texts, lambda rows, ids: rows.shape)
    np.testing.assert_array_equal(made, alone)


@pytest.mark.parametrize(
    ("name", "precision"), [("bge-small-en-v1.5", "int8"), ("e5-small-v2", "int8"), ("multilingual-e5-small", "fp32")]
)
def test_emoji_and_mixed_scripts_have_a_vector_in_each_model(load_model, name: str, precision: str) -> None:
    encoder = load_model(name, precision)
    vectors = encoder.encode_passages(MIXED)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for text in MIXED:
        assert all(0 <= start <= end <= len(text) for start, end in encoder.token_offsets(text))


def test_e5_puts_its_prefixes_in_front(load_model) -> None:
    e5 = load_model("e5-small-v2", "int8")
    assert (e5.name, e5.dimension) == ("e5-small-v2-int8", 384)
    assert cosine(e5.encode_query("wing flutter"), e5.encode_passages(["wing flutter"])[0]) < 0.999
    passages = e5.encode_passages(
        ["Flutter is an unstable oscillation of a wing.", "Bread is baked from flour.", "Cats sleep all day."]
    )
    assert int(np.argmax(passages @ e5.encode_query("why do wings start to oscillate?"))) == 0


def test_related_texts_are_nearer(minilm: Encoder) -> None:
    near, far = minilm.encode_passages(["The cat sat on the mat.", "Interest rates rose in March."])
    query = minilm.encode_query("a kitten resting on a rug")
    assert cosine(query, near) > cosine(query, far) + 0.2


def test_pooled_outputs_are_taken_as_they_are(tmp_path: Path, model_folder: Path) -> None:
    tokenizer = model_folder / "tokenizer.json"
    pooled = Encoder(tiny_model(tmp_path / "a", tokenizer, output="sentence_embedding", pooled=True), name="a")
    hidden = Encoder(tiny_model(tmp_path / "b", tokenizer), name="b")
    assert pooled.dimension == hidden.dimension == WIDTH
    np.testing.assert_allclose(pooled.encode_query("flat plate"), hidden.encode_query("flat plate"), atol=1e-6)


def test_padding_does_not_enter_the_mean(tmp_path: Path, model_folder: Path) -> None:
    encoder = Encoder(tiny_model(tmp_path / "m", model_folder / "tokenizer.json", ids_type=TensorProto.INT32), name="m")
    both = encoder.encode_passages(["short", passage(0, 40)])
    np.testing.assert_allclose(both[0], encoder.encode_query("short"), atol=1e-6)


@pytest.mark.parametrize("broken", [np.nan, np.inf, 0.0])
def test_vectors_that_are_not_numbers_are_refused(tmp_path: Path, model_folder: Path, broken: float) -> None:
    table = np.ones((VOCABULARY, WIDTH), np.float32)
    tokenizer = model_folder / "tokenizer.json"
    whole = Encoder(tiny_model(tmp_path / "good", tokenizer, table=table), name="good")
    plate = whole._tokenizer.token_to_id("plate")
    table[plate] = broken if broken else -1.0  # with the two special tokens around it: 1 - 1 - 1 + 1 = 0
    encoder = Encoder(tiny_model(tmp_path / "bad", tokenizer, table=table), name="bad")
    with pytest.raises(EncoderError, match="not finite or is zero"):
        encoder.encode_query("plate plate")
    with pytest.raises(EncoderError):
        encoder.encode_passages(["fine words", "plate plate"])


def test_a_model_that_wants_other_inputs_is_refused(tmp_path: Path, model_folder: Path) -> None:
    folder = tiny_model(tmp_path / "m", model_folder / "tokenizer.json", extra_input="pixel_values")
    with pytest.raises(ConfigurationError, match="pixel_values"):
        Encoder(folder, name="m")


def test_more_tokens_than_the_model_has_places_are_refused(model_folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="BRAID_EMBEDDING_MAX_TOKENS"):
        Encoder(model_folder, name="m", max_tokens=600, provider="cpu")
    assert Encoder(model_folder, name="m", max_tokens=512, provider="cpu").max_tokens == 512


def test_numpy_leaves_the_cores_to_the_model(minilm: Encoder) -> None:
    """BLAS threads spin between the products of MaxSim, on cores that OpenSearch and other requests need."""
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    assert pools
    assert {pool["num_threads"] for pool in pools} == {1}


def test_token_vectors_are_those_of_the_text_and_not_of_its_prefix(minilm: Encoder, model_folder: Path) -> None:
    prefixed = Encoder(model_folder, name="prefixed", prefixes=Prefixes(query="query: ", passage="passage: "))
    text = "how often does the lamp turn"
    vector, hidden, ids = prefixed.encode_query_with_tokens(text)
    plain, plain_hidden, plain_ids = minilm.encode_query_with_tokens(text)
    assert (ids == plain_ids).all()
    assert hidden.shape == plain_hidden.shape
    assert not np.allclose(vector, plain)  # the prefix is read
    _, (kept,) = prefixed.encode_passages_with_tokens([text], lambda rows, tokens: tokens.copy())
    assert (kept == plain_ids).all()
