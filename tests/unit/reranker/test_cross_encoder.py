import math
import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from reranker.cross_encoder import CrossEncoder
from reranker.errors import ConfigurationError, InferenceError
from reranker.runtime.session import run_bound
from tests.reranker_model import write_cross_encoder

QUERY = "boundary layer on a flat plate"
DOCUMENTS = [
    "wings of birds",
    "Boundary layers on flat plates in hypersonic flow",
    "a plate of fish",
    "layer upon layer, a flat boundary",
    "",
    "flat " * 300,
]


def test_it_ranks_by_what_the_query_asks_for(tiny: CrossEncoder) -> None:
    scored = tiny.score(QUERY, DOCUMENTS)
    assert np.argsort(-scored.logits)[:3].tolist() == [1, 3, 5]
    assert scored.truncated == 1
    assert scored.logits.dtype == np.float32
    assert scored.tokens > 256
    assert scored.tokenize_ms > 0
    assert scored.compute_ms > 0


def test_a_score_does_not_depend_on_the_neighbours(tiny: CrossEncoder) -> None:
    together = tiny.score(QUERY, DOCUMENTS * 7).logits
    alone = [tiny.score(QUERY, [document]).logits[0] for document in DOCUMENTS]
    assert together == pytest.approx(alone * 7, abs=1e-4)


@pytest.mark.parametrize("token_types", [True, False])
@pytest.mark.parametrize("ids_type", [TensorProto.INT64, TensorProto.INT32])
def test_the_forms_that_models_come_in(tmp_path: Path, token_types: bool, ids_type: int) -> None:
    folder = write_cross_encoder(tmp_path, token_types=token_types, ids_type=ids_type)
    logits = CrossEncoder(folder, provider="cpu", threads=1).score(QUERY, DOCUMENTS).logits
    assert int(np.argmax(logits)) == 1


def test_texts_that_no_one_should_send(tiny: CrossEncoder) -> None:
    documents = ["", " ", "\ud800", "\x00\x01", "a\ud800b flat plate", "x" * 1_000_000, "plate " * 200_000, "🛩️" * 50]
    for query in (QUERY, "", "\udfff", "wing " * 10_000):
        logits = tiny.score(query, documents).logits
        assert logits.shape == (8,)
        assert np.isfinite(logits).all()
    assert tiny.score(QUERY, []).logits.shape == (0,)


def test_threads_get_their_own_scores(tiny: CrossEncoder) -> None:
    expected = tiny.score(QUERY, DOCUMENTS).logits
    found: dict[int, np.ndarray] = {}

    def ask(number: int) -> None:
        turned = DOCUMENTS[number:] + DOCUMENTS[:number]
        found[number] = np.roll(tiny.score(QUERY, turned).logits, number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for logits in found.values():
        assert logits == pytest.approx(expected, abs=1e-4)


def test_io_binding_gives_the_same_scores(tiny: CrossEncoder) -> None:
    # there is no GPU here: the way the inputs are bound is the same on the CPU
    pairs = tiny.tokenize(QUERY, DOCUMENTS[:4]).pairs
    bound = run_bound(tiny._session, tiny._feed(pairs), tiny._output, device="cpu")
    assert bound[:, 0] == pytest.approx(tiny.infer(pairs), abs=1e-6)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "openvino"])
def test_a_provider_that_is_not_here_is_named(tiny_folder: Path, provider: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'{provider}' is not usable here.*install onnxruntime-"):
        CrossEncoder(tiny_folder, provider=provider)  # type: ignore[arg-type]


def test_scores_that_are_not_finite_are_an_error(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = CrossEncoder(tiny_folder, provider="cpu", threads=1)
    monkeypatch.setattr("reranker.cross_encoder.run", lambda *_: np.array([[math.nan]], np.float32))
    with pytest.raises(InferenceError, match="not finite"):
        model.score(QUERY, ["x"])
