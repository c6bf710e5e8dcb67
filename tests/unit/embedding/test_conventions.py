"""Folders of models of one's own, as sentence-transformers and optimum-cli write them: real models of a few nodes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from app.config import load_settings
from app.embedding.conventions import Conventions, read_conventions
from app.embedding.encoder import Encoder, load_encoder
from app.errors import ConfigurationError
from app.ingest.cutting import recipe
from tests.unit.embedding.tiny_model import VOCABULARY, WIDTH, tiny_model

MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]
PROMPTS = {"prompts": {"query": "ask: ", "document": "tell: "}, "default_prompt_name": None}


def write(folder: Path, name: str, body: object) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(body))


def load(folder: Path, **values: object) -> Encoder:
    return load_encoder(load_settings(embedding_path=folder, embedding_model="own", **values))


@pytest.fixture
def folder(tmp_path: Path, model_folder: Path) -> Path:
    """A whole folder, as `SentenceTransformer.save_pretrained` leaves it beside an export."""
    made = tiny_model(tmp_path / "own", model_folder / "tokenizer.json")
    write(made, "modules.json", MODULES)
    write(made, "1_Pooling/config.json", {"word_embedding_dimension": WIDTH, "pooling_mode_cls_token": True})
    write(made, "config_sentence_transformers.json", PROMPTS)
    write(made, "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": False})
    write(made, "config.json", {"hidden_size": WIDTH, "vocab_size": VOCABULARY, "max_position_embeddings": 128})
    return made


def test_a_whole_folder_needs_no_setting(folder: Path) -> None:
    assert read_conventions(folder) == Conventions("cls", "ask: ", "tell: ", 64, WIDTH, VOCABULARY)
    encoder = load(folder)
    assert (encoder.name, encoder.max_tokens, encoder.passage_prefix) == ("own", 64, "tell: ")
    # [CLS] is looked up alone, so every text has its vector
    np.testing.assert_allclose(encoder.encode_query("one"), encoder.encode_passages(["another"])[0], atol=1e-6)


def test_settings_come_before_the_folder(folder: Path) -> None:
    encoder = load(folder, embedding_pooling="mean", embedding_passage_prefix="none", embedding_max_tokens=32)
    assert (encoder.max_tokens, encoder.passage_prefix) == (32, "")
    plain = Encoder(folder, name="plain", max_tokens=32)
    np.testing.assert_allclose(encoder.encode_passages(["a text"]), plain.encode_passages(["a text"]), atol=1e-6)
    np.testing.assert_allclose(encoder.encode_query("a text"), plain.encode_query("ask: a text"), atol=1e-6)


def test_a_folder_comes_before_the_built_in_model_of_its_name(folder: Path) -> None:
    encoder = load_encoder(load_settings(embedding_path=folder, embedding_model="multilingual-e5-small"))
    assert (encoder.max_tokens, encoder.passage_prefix) == (64, "tell: ")


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean"),
        ({"embedding_dimension": 4, "pooling_mode": "cls", "include_prompt": True}, "cls"),
        ({"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, "cls + max"),
        ({"word_embedding_dimension": 4}, None),
    ],
)
def test_pooling_old_and_new(folder: Path, config: dict[str, object], pooling: str | None) -> None:
    write(folder, "1_Pooling/config.json", config)
    assert read_conventions(folder).pooling == pooling


@pytest.mark.parametrize(
    ("config", "query", "passage"),
    [
        ({}, None, None),
        ({"__version__": {}}, "", ""),
        ({"prompts": {}}, "", ""),
        ({"prompts": {"query": "q: "}}, "q: ", ""),
        ({"prompts": {"query": "q: ", "passage": "p: "}}, "q: ", "p: "),
        ({"prompts": {"all": "x: "}, "default_prompt_name": "all"}, "x: ", "x: "),
        ({"prompts": {"classification": "c: "}}, None, None),
    ],
)
def test_prompts(folder: Path, config: dict[str, object], query: str | None, passage: str | None) -> None:
    write(folder, "config_sentence_transformers.json", config)
    found = read_conventions(folder)
    assert (found.query_prefix, found.passage_prefix) == (query, passage)


def test_length_without_sentence_bert_config(folder: Path) -> None:
    (folder / "sentence_bert_config.json").unlink()
    assert read_conventions(folder).max_tokens == 128
    write(folder, "tokenizer_config.json", {"model_max_length": 100})
    assert read_conventions(folder).max_tokens == 100
    write(folder, "tokenizer_config.json", {"model_max_length": 1e30})
    assert read_conventions(folder).max_tokens == 128


def test_a_bare_folder_is_asked_for_by_setting(tmp_path: Path, model_folder: Path) -> None:
    bare = tiny_model(tmp_path / "bare", model_folder / "tokenizer.json")
    with pytest.raises(ConfigurationError, match=r"EMBEDDING_QUERY_PREFIX and BRAID_EMBEDDING_PASSAGE_PREFIX.*`none`"):
        load(bare)
    prompts = {"embedding_query_prefix": "none", "embedding_passage_prefix": "none"}
    with pytest.raises(ConfigurationError, match="set BRAID_EMBEDDING_POOLING to mean or cls"):
        load(bare, **prompts)
    assert load(bare, **prompts, embedding_pooling="mean").max_tokens == 256


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "lasttoken"}, "by 'lasttoken', which Braid can't do.*optimum-cli"),
        ("1_Pooling/config.json", {"include_prompt": False}, "include_prompt false"),
        ("modules.json", [*MODULES, {"type": "sentence_transformers.models.Dense"}], r"by 'cls \+ Dense'"),
        ("modules.json", {"0": "Transformer"}, "not a list of modules"),
        ("config.json", {"vocab_size": 250_037}, r"tokenizer\.json in .* has 30522 words, .* vocab_size 250037"),
        ("config.json", {"vocab_size": 100}, "has 30522 words, and config.json says vocab_size 100"),
        ("config.json", {"hidden_size": 768}, "returns 4 numbers a token, and config.json says hidden_size 768"),
        ("config.json", [], r"config\.json is not a JSON object"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "says do_lower_case"),
    ],
)
def test_what_braid_can_t_do_is_named(folder: Path, name: str, body: object, message: str) -> None:
    write(folder, name, body)
    with pytest.raises(ConfigurationError, match=message):
        load(folder)


def test_another_measure_than_the_cosine_is_refused(folder: Path) -> None:
    write(folder, "config_sentence_transformers.json", {**PROMPTS, "similarity_fn_name": "dot"})
    assert load(folder).dimension == WIDTH  # of unit vectors it is the cosine
    write(folder, "modules.json", MODULES[:2])
    with pytest.raises(ConfigurationError, match=r"similarity_fn_name 'dot'.*Braid compares by cosine"):
        load(folder)


def test_broken_json_is_named(folder: Path) -> None:
    (folder / "modules.json").write_text('[{"type": ')
    with pytest.raises(ConfigurationError, match=r"modules\.json can't be read as JSON"):
        load(folder)


def test_a_model_that_pools_itself_needs_no_pooling(tmp_path: Path, model_folder: Path) -> None:
    made = tiny_model(tmp_path / "own", model_folder / "tokenizer.json", output="sentence_embedding", pooled=True)
    write(made, "1_Pooling/config.json", {"pooling_mode": "lasttoken"})
    write(made, "config_sentence_transformers.json", PROMPTS)
    assert load(made).dimension == WIDTH


def test_the_onnx_file_by_setting_or_in_its_subfolder(folder: Path) -> None:
    (folder / "onnx").mkdir()
    (folder / "model.onnx").rename(folder / "onnx" / "model.onnx")
    assert load(folder).dimension == WIDTH
    (folder / "onnx" / "model.onnx").rename(folder / "onnx" / "model_quantized.onnx")
    with pytest.raises(ConfigurationError, match=r"no model\.onnx in that folder: name one of onnx/model_quantized\.o"):
        load(folder)
    assert load(folder, embedding_file="onnx/model_quantized.onnx").dimension == WIDTH
    with pytest.raises(ConfigurationError, match=r"no model_int8\.onnx in that folder: name one of onnx/model_quant"):
        load(folder, embedding_file="model_int8.onnx")


def test_a_tokenizer_of_more_words_than_the_model_has_rows(tmp_path: Path, model_folder: Path) -> None:
    table = np.ones((VOCABULARY - 1, WIDTH), np.float32)
    made = tiny_model(tmp_path / "own", model_folder / "tokenizer.json", table=table)
    with pytest.raises(ConfigurationError, match=f"no row for word {VOCABULARY - 1} of its tokenizer.json"):
        Encoder(made, name="own")


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_model_file_cut_short(tmp_path: Path, model_folder: Path, share: float) -> None:
    content = (model_folder / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(content[: int(len(content) * share)])
    shutil.copyfile(model_folder / "tokenizer.json", tmp_path / "tokenizer.json")
    with pytest.raises(ConfigurationError, match=r"can't load model\.onnx.*whole"):
        Encoder(tmp_path, name="cut")


def test_passages_are_made_anew_when_the_prompt_of_the_folder_changes(folder: Path) -> None:
    made_by = recipe(load_settings(), load(folder))
    assert "prefix='tell: '" in made_by
    write(folder, "config_sentence_transformers.json", {"prompts": {"query": "ask: ", "document": "other: "}})
    assert recipe(load_settings(), load(folder)) != made_by
