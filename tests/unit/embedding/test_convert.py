from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from app.embedding.convert import convert_to_fp16, main
from app.embedding.encoder import Encoder
from app.errors import ConfigurationError

TEXTS = ["flat plate", "Größe und Maß", "", "a longer text about wings and the drag they have at low speed"]


def test_fp16_is_half_the_size_and_gives_the_same_vectors(tmp_path: Path, minilm: Encoder, model_folder: Path) -> None:
    target = tmp_path / "cache" / "fp16"
    result = CliRunner().invoke(main, ["--source", str(model_folder), "--target", str(target)])
    assert result.exit_code == 0, result.output
    assert (target / "model.onnx").stat().st_size < 0.55 * (model_folder / "model.onnx").stat().st_size
    assert [path.name for path in target.parent.iterdir()] == ["fp16"]
    vectors = Encoder(target, name="fp16", provider="cpu").encode_passages(TEXTS)
    assert (vectors * minilm.encode_passages(TEXTS)).sum(axis=1).min() >= 0.9999
    with pytest.raises(ConfigurationError, match="remove it"):
        convert_to_fp16(model_folder, target)
    assert np.isfinite(vectors).all()


def test_the_command_reports_a_missing_model(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--source", str(tmp_path), "--target", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "no model.onnx" in result.output
