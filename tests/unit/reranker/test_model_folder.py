import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reranker.calibration import Bound, Isotonic, Platt
from reranker.cross_encoder import CrossEncoder
from reranker.errors import ModelFolderError
from reranker.model_folder import ModelSettings, load_settings, write_settings
from tests.reranker_model import write_cross_encoder


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may break."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def test_settings_come_back_as_they_were_written(folder: Path) -> None:
    given = ModelSettings(
        name="mine",
        max_tokens=128,
        weight=0.7,
        precision="int8",
        calibration=Isotonic(x=(-2.0, 0.0, 2.0), y=(0.0, 0.25, 1.0)),
        bound=Bound(fused=(0.0, 1.0), p=(0.1, 0.9)),
    )
    write_settings(folder, given)
    assert load_settings(folder) == given
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    write_settings(folder, replace(given, calibration=Platt(a=2.0, b=-1.0), bound=None))
    assert json.loads((folder / "reranker.json").read_text())["calibration"] == {"method": "platt", "a": 2.0, "b": -1.0}


def test_without_reranker_json_the_defaults_hold(folder: Path) -> None:
    (folder / "reranker.json").unlink()
    assert load_settings(folder) == ModelSettings(name="model", max_tokens=256)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))
    assert load_settings(folder).max_tokens == 64


def test_probabilities() -> None:
    logits = np.array([-1000.0, -1.0, 0.0, 1.0, 1000.0], np.float32)
    plain = ModelSettings(name="m").probability(logits)
    assert plain == pytest.approx([0, 0.2689414, 0.5, 0.7310586, 1])
    assert ModelSettings(name="m", calibration=Platt(a=2, b=1)).probability(logits)[2] == pytest.approx(0.7310586)
    isotonic = ModelSettings(name="m", calibration=Isotonic(x=(-1, 1), y=(0.2, 0.6)))
    assert isotonic.probability(logits) == pytest.approx([0.2, 0.2, 0.4, 0.6, 0.6])


def test_the_bound_is_one_where_none_was_calibrated() -> None:
    fused = np.array([0.0, 0.5, 1.0])
    assert ModelSettings(name="m").upper_bound(fused) == pytest.approx([1, 1, 1])
    bounded = ModelSettings(name="m", bound=Bound(fused=(0, 1), p=(0.2, 1)))
    assert bounded.upper_bound(fused) == pytest.approx([0.2, 0.6, 1])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{", "Invalid JSON"),
        ('{"max_tokens": 100}', "name"),
        ('{"name": "m", "weight": 3}', "weight.*3"),
        ('{"name": "m", "wieght": 0.3}', "wieght"),
        ('{"name": "m", "max_tokens": 1000}', "512 positions"),
        ('{"name": "m", "calibration": {"method": "platt", "a": -1, "b": 0}}', "calibration"),
        ('{"name": "m", "calibration": {"method": "isotonic", "x": [1, 0], "y": [0, 1]}}', "ascend"),
        ('{"name": "m", "calibration": {"method": "isotonic", "x": [0, 1], "y": [0]}}', "pairs"),
        ('{"name": "m", "bound": {"fused": [0, 2], "p": [0, 1]}}', "bound"),
    ],
)
def test_a_wrong_reranker_json_says_what_is_wrong(folder: Path, body: str, message: str) -> None:
    (folder / "reranker.json").write_text(body)
    with pytest.raises(ModelFolderError, match=message):
        load_settings(folder)


def test_optimum_s_limit_of_the_tokenizer_holds(folder: Path) -> None:
    (folder / "reranker.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 100}')
    assert load_settings(folder).max_tokens == 100
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    assert load_settings(folder).max_tokens == 256


def test_the_onnx_file_by_setting_or_in_its_subfolder(folder: Path) -> None:
    (folder / "onnx").mkdir()
    (folder / "model.onnx").rename(folder / "onnx" / "model.onnx")
    assert len(CrossEncoder(folder, provider="cpu").score("a", ["b"]).logits) == 1
    (folder / "onnx" / "model.onnx").rename(folder / "onnx" / "model_quantized.onnx")
    with pytest.raises(
        ModelFolderError, match=r'say which of onnx/model_quantized\.onnx it is in reranker\.json.*"file"'
    ):
        CrossEncoder(folder, provider="cpu")
    write_settings(folder, ModelSettings(name="m", file="onnx/model_quantized.onnx"))
    assert len(CrossEncoder(folder, provider="cpu").score("a", ["b"]).logits) == 1


def test_a_tokenizer_of_another_vocabulary_is_named(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 100}))
    with pytest.raises(ModelFolderError, match=r"tokenizer\.json in .* words, and config\.json says vocab_size 100"):
        CrossEncoder(folder, provider="cpu")


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelFolderError, match=f"no {name}"):
        CrossEncoder(folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("content", [b"", b"\x00broken", b"[]"])
def test_a_corrupt_file_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ModelFolderError, match=name):
        CrossEncoder(folder, provider="cpu")


def test_a_cut_off_model_is_refused(folder: Path) -> None:
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelFolderError, match=r"model\.onnx"):
        CrossEncoder(folder, provider="cpu")


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="there is no folder"):
        load_settings(tmp_path / "nothing")


def test_several_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="num_labels 3"):
        load_settings(write_cross_encoder(tmp_path, labels=3))


def test_the_model_itself_is_believed_rather_than_its_config(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path, labels=3)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_labels": 1}))
    with pytest.raises(ModelFolderError, match=r"one output of logits, \(n, 1\); found the outputs logits"):
        CrossEncoder(folder, provider="cpu")


def test_an_encoder_is_no_cross_encoder(folder: Path, model_folder: Path) -> None:
    shutil.copyfile(model_folder / "model.onnx", folder / "model.onnx")
    with pytest.raises(ModelFolderError, match="found the outputs last_hidden_state"):
        CrossEncoder(folder, provider="cpu")


def test_a_model_with_fewer_places_than_max_tokens(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path, places=64, max_tokens=64)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 512}))
    write_settings(folder, ModelSettings(name="m", max_tokens=128))
    with pytest.raises(ModelFolderError, match="does not run on pairs of 128 tokens"):
        CrossEncoder(folder, provider="cpu")
