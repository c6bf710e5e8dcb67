"""Files of calibrations: which one serves a model, and what an unusable one says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from app.calibration import SHIPPED, Calibration, calibration_for, split_name
from app.config import load_settings
from app.errors import ConfigurationError

MINILM = "all-MiniLM-L6-v2"


def found(name: str, **settings: Any) -> Calibration | None:
    return calibration_for(load_settings(**settings).embedding, name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of MiniLM's calibration."""
    return Path(shutil.copytree(SHIPPED / MINILM, tmp_path / "calibration"))


def change(folder: Path, **changes: Any) -> None:
    body = json.loads((folder / "fp32.json").read_text())
    (folder / "fp32.json").write_text(json.dumps({**body, **changes}))


def test_minilm_keeps_the_values_that_it_had_before_there_were_files() -> None:
    for precision in ("", "-int8", "-fp16"):
        calibration = found(MINILM + precision)
        assert calibration is not None
        answers = calibration.answers
        assert (answers.min_cosine, answers.min_covered_cosine, answers.min_coverage) == (0.4, 0.2, 0.67)
        assert (answers.zero_cosine, answers.cosine_unit) == (0, 1)
        assert (answers.cosine_share, answers.rank_weight, answers.second_share) == (0.6, 0.1, 0.85)
        assert calibration.near_min_cosine == 0.8
        assert calibration.weight_model is not None
        assert calibration.token_projection is not None
    assert found(MINILM) is found(f"{MINILM}-fp16")


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*/*.json")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_each_shipped_file_is_whole_and_names_its_data_with_licences(path: Path) -> None:
    suffix = "" if path.stem == "fp32" else f"-{path.stem}"
    calibration = found(path.parent.name + suffix)
    assert calibration is not None
    assert calibration.embedding_model == path.parent.name
    assert all(item["set"] and item["licence"] for item in calibration.about["data"])
    assert sum(file.stat().st_size for file in path.parent.iterdir()) <= 1_500_000


@pytest.mark.parametrize("name", ["some-other-model", "", "..", f"../calibrations/{MINILM}", f"{MINILM}-int4"])
def test_a_model_without_a_calibration_has_none(name: str) -> None:
    assert found(name) is None


def test_a_folder_of_one_s_own_comes_first(folder: Path, tmp_path: Path) -> None:
    change(folder, embedding_model="mine", near_min_cosine=0.93)
    named = found("mine", embedding_calibration=str(folder))
    beside = found("mine", embedding_path=str(tmp_path))
    assert named is not None
    assert named is beside
    assert named.near_min_cosine == 0.93
    change(folder, embedding_model="mine", near_min_cosine=0.94)
    again = found("mine", embedding_path=str(tmp_path))
    assert again is not None
    assert again.near_min_cosine == 0.94
    assert again.digest != named.digest


def test_the_calibration_of_another_model_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"made for the embedding model 'all-MiniLM-L6-v2'.*has 'mine'"):
        found("mine", embedding_calibration=str(folder))


def test_a_folder_without_the_precision_is_refused(folder: Path) -> None:
    (folder / "int8.json").unlink()
    with pytest.raises(ConfigurationError, match=r"no int8.json in that folder; `braid calibrate --out"):
        found(f"{MINILM}-int8", embedding_calibration=str(folder))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"near_min_cosine": 2}, "near_min_cosine"),
        ({"near_min_cosine": "NaN"}, "near_min_cosine"),
        ({"format": 2}, "format"),
        ({"answers": {"min_cosine": 0.2, "min_covered_cosine": 0.4, "min_coverage": 0.5}}, "is above min_cosine"),
        ({"answers": None}, "answers"),
        ({"code": "import os"}, "code"),
        ({"token_projection": {"file": "../../secrets.npz", "sha256": "0" * 64}}, "token_projection"),
        ({"token_projection": {"sha256": "0" * 64}}, "is not the file that fp32.json names"),
    ],
)
def test_a_file_that_is_unusable_says_where_and_what_to_do(folder: Path, changes: dict[str, Any], told: str) -> None:
    change(folder, **changes)
    with pytest.raises(ConfigurationError, match=told) as error:
        found(MINILM, embedding_calibration=str(folder))
    assert "braid calibrate" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_file_that_is_cut_short_says_what_to_do(folder: Path, content: bytes) -> None:
    (folder / "fp32.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match="not a usable calibration"):
        found(MINILM, embedding_calibration=str(folder))


def test_a_missing_projection_says_what_to_do(folder: Path) -> None:
    (folder / "token_projection.npz").unlink()
    with pytest.raises(ConfigurationError, match="not a usable calibration"):
        found(MINILM, embedding_calibration=str(folder))


def test_the_names_of_models() -> None:
    assert split_name("a-b") == ("a-b", "fp32")
    assert split_name("a-b-int8") == ("a-b", "int8")
    assert split_name("a-fp16") == ("a", "fp16")
