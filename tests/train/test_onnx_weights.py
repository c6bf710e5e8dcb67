"""Weights of an ONNX encoder in torch: the same outputs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from app.config import load_settings
from app.errors import ProvisioningError
from app.provision.models import ensure_model
from reranker.errors import ModelFolderError
from reranker.train.onnx_weights import load_bert, read_weights
from tests.train.conftest import torch


@pytest.fixture(scope="module")
def minilm() -> Path:
    try:
        return ensure_model("all-MiniLM-L6-v2", "fp32", load_settings().machine)
    except ProvisioningError as error:
        pytest.skip(f"the encoder can't be had here: {error.detail}")


def test_torch_gives_what_onnx_gives(minilm: Path) -> None:
    rng = np.random.default_rng(1)
    ids = rng.integers(1000, 30000, (4, 40))
    mask = (np.arange(40) < np.array([[40], [25], [7], [1]])).astype(np.int64)
    types = np.zeros_like(ids)
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    (expected,) = ort.InferenceSession(str(minilm / "model.onnx")).run(None, given)
    with torch.inference_mode():
        found = load_bert(minilm)(**{name: torch.from_numpy(value) for name, value in given.items()})
    difference = np.abs(found.last_hidden_state.numpy() - expected)[mask.astype(bool)]
    assert difference.max() < 1e-4


def test_every_weight_is_found_by_name_or_through_the_graph(minilm: Path) -> None:
    weights = read_weights(minilm / "model.onnx")
    assert weights["encoder.layer.5.intermediate.dense.weight"].shape == (1536, 384)
    assert len(weights) == 5 + 16 * 6


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=r"does not exist; expected a BERT encoder in ONNX"):
        load_bert(tmp_path)


def test_no_onnx(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\xff\xffnonsense" * 20)
    with pytest.raises(ModelFolderError, match="not an ONNX file"):
        load_bert(tmp_path)


def test_a_quantised_model_can_not_be_trained(tmp_path: Path) -> None:
    try:
        folder = ensure_model("all-MiniLM-L6-v2", "int8", load_settings().machine)
    except ProvisioningError as error:
        pytest.skip(f"the encoder can't be had here: {error.detail}")
    shutil.copy(folder / "model.onnx", tmp_path)
    with pytest.raises(ModelFolderError, match=r"quantised .* needs the fp32 model"):
        load_bert(tmp_path)
