import builtins
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from reranker.cross_encoder import CrossEncoder
from reranker.errors import ConfigurationError, ModelFolderError
from reranker.model_folder import load_settings
from reranker.quantize import convert_fp16, quantize_int8

QUERY = "boundary layer on a flat plate"
DOCUMENTS = [
    "boundary layers on flat plates",
    "the flat plate and its boundary",
    "flat plate",
    "a boundary",
    "layer of a boundary, and birds",
    "a plate of fish",
    "wings of birds",
    "",
]


@pytest.mark.parametrize("how", [{}, {"weights": "u8"}, {"embeddings": True}, {"keep_last_layers": 1}])
def test_int8_ranks_as_fp32_does(tiny: CrossEncoder, tiny_folder: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    target = tmp_path / "made" / "int8"
    quantize_int8(tiny_folder, target, **how)
    assert [path.name for path in target.parent.iterdir()] == ["int8"]
    assert {path.name for path in target.iterdir()} == {path.name for path in tiny_folder.iterdir()}
    model = CrossEncoder(target, provider="cpu", threads=1)
    assert (model.settings.precision, model.name) == ("int8", tiny.name)
    ours, exact = model.score(QUERY, DOCUMENTS).logits, tiny.score(QUERY, DOCUMENTS).logits
    assert ours == pytest.approx(exact, abs=0.02)
    assert np.argsort(-ours, kind="stable").tolist() == np.argsort(-exact, kind="stable").tolist()


def test_what_is_quantised_is_what_was_asked_for(tiny_folder: Path, tmp_path: Path) -> None:
    def weights(**how: Any) -> dict[str, np.ndarray]:
        target = tmp_path / str(how)
        quantize_int8(tiny_folder, target, **how)
        graph = onnx.load(target / "model.onnx").graph
        return {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}

    def layers(found: dict[str, np.ndarray], kind: type) -> set[str]:
        names = [name for name, values in found.items() if values.dtype == kind and name.endswith("_quantized")]
        return {part.split(".")[3] for part in names if "encoder.layer" in part}

    plain = weights()
    assert layers(plain, np.int8) == {"0", "1"}
    # 7 bits: no sum of two products by u8 activations can be over 32767
    assert max(np.abs(values).max() for values in plain.values() if values.dtype == np.int8 and values.size > 99) <= 64
    assert "classifier.weight" in plain
    assert "bert.embeddings.word_embeddings.weight" in plain
    assert layers(weights(weights="u8"), np.uint8) == {"0", "1"}
    assert layers(weights(keep_last_layers=1), np.int8) == {"0"}
    assert "bert.embeddings.word_embeddings.weight" not in weights(embeddings=True)


def test_fp16_is_half_the_size(tiny: CrossEncoder, tiny_folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "fp16"
    convert_fp16(tiny_folder, target)
    assert (target / "model.onnx").stat().st_size < 0.6 * (tiny_folder / "model.onnx").stat().st_size
    assert load_settings(target).precision == "fp16"
    logits = CrossEncoder(target, provider="cpu", threads=1).score(QUERY, DOCUMENTS).logits
    assert logits == pytest.approx(tiny.score(QUERY, DOCUMENTS).logits, abs=0.02)


def test_what_can_not_be_converted(tiny_folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "int8"
    quantize_int8(tiny_folder, target)
    with pytest.raises(ConfigurationError, match="remove it"):
        quantize_int8(tiny_folder, target)
    with pytest.raises(ModelFolderError, match="from the fp32 model"):
        quantize_int8(target, tmp_path / "again")
    broken = Path(shutil.copytree(tiny_folder, tmp_path / "broken"))
    (broken / "model.onnx").write_bytes(b"\x00broken")
    with pytest.raises(ModelFolderError, match=r"model\.onnx in .* can't be read"):
        quantize_int8(broken, tmp_path / "never")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "int8"]


def test_a_model_whose_layers_can_not_be_told_apart(tiny_folder: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_folder, tmp_path / "source"))
    model = onnx.load(source / "model.onnx")
    for node in model.graph.node:
        node.name = ""
        for names in (node.input, node.output):
            names[:] = [name.replace("encoder.layer.", "x") for name in names]
    for item in model.graph.initializer:
        item.name = item.name.replace("encoder.layer.", "x")
    onnx.save(model, source / "model.onnx")
    quantize_int8(source, tmp_path / "all")
    assert CrossEncoder(tmp_path / "all", provider="cpu", threads=1).score(QUERY, DOCUMENTS).logits.argmax() == 0
    with pytest.raises(ModelFolderError, match="which layer"):
        quantize_int8(source, tmp_path / "some", keep_last_layers=1)


def test_without_the_extra(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith(("onnx.", "onnxruntime.quantization")) or name == "onnx":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    for convert in (quantize_int8, convert_fp16):
        with pytest.raises(ConfigurationError, match=r"braid-rag\[convert\]"):
            convert(tiny_folder, tmp_path / "never")
