"""Hugging Face folders -> model folders, and what is wrong with those that are none."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from reranker.cross_encoder import CrossEncoder
from reranker.errors import ModelFolderError
from reranker.train.export import TOLERANCE, export
from reranker.train.scoring import TorchScorer
from reranker.train.students import load_classifier
from tests.train.conftest import WORDS, read_json, tiny_config, torch, write_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_exported_model_scores_as_torch_does(classifier: Path, tmp_path: Path) -> None:
    assert export(classifier, tmp_path / "out", max_tokens=32) <= TOLERANCE
    query, documents = "word1 word2", ["word1", " ".join(WORDS), "word3 word9 word2", ""]
    expected = TorchScorer(load_classifier(classifier), classifier, max_tokens=32).logits(query, documents)
    found = CrossEncoder(tmp_path / "out", threads=1).score(query, documents)
    assert np.abs(found.logits - expected).max() < TOLERANCE
    assert np.ptp(expected) > 10 * TOLERANCE, "the tiny model tells nothing apart: the comparison would mean nothing"
    assert found.truncated == 1


def test_what_the_folder_says(classifier: Path, tmp_path: Path) -> None:
    export(classifier, tmp_path / "out", name="mine")
    assert read_json(tmp_path / "out" / "config.json")["num_labels"] == 1
    settings = read_json(tmp_path / "out" / "reranker.json")
    assert settings["name"] == "mine"
    assert settings["max_tokens"] == 64, "cut to the model's places"
    assert not list((tmp_path / "out").glob(".*")), "nothing half made is left"


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=r"there is no folder .*config\.json, model\.safetensors"):
        export(tmp_path / "nothing", tmp_path / "out")


def test_no_tokenizer(classifier: Path, tmp_path: Path) -> None:
    shutil.copytree(classifier, tmp_path / "in")
    (tmp_path / "in" / "tokenizer.json").unlink()
    with pytest.raises(ModelFolderError, match=r"no tokenizer\.json"):
        export(tmp_path / "in", tmp_path / "out")


def test_two_labels(tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    BertForSequenceClassification(tiny_config(num_labels=2)).save_pretrained(tmp_path / "in")
    write_tokenizer(tmp_path / "in")
    with pytest.raises(ModelFolderError, match=r"2 labels; a reranker returns one score"):
        export(tmp_path / "in", tmp_path / "out")


def test_a_bare_encoder_is_no_cross_encoder(encoder: Path, tmp_path: Path) -> None:
    shutil.copytree(encoder, tmp_path / "in")
    config = (tmp_path / "in" / "config.json").read_text()
    (tmp_path / "in" / "config.json").write_text(config.replace("{", '{"num_labels": 1,', 1))
    with pytest.raises(ModelFolderError, match="not a bare encoder"):
        export(tmp_path / "in", tmp_path / "out")


def test_weights_that_are_cut_off(classifier: Path, tmp_path: Path) -> None:
    shutil.copytree(classifier, tmp_path / "in")
    weights = tmp_path / "in" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelFolderError, match="can't be loaded"):
        export(tmp_path / "in", tmp_path / "out")
