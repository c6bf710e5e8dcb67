"""Folders that `optimum-cli export onnx` writes, of small models made here, give sentence-transformers' vectors.

optimum asks for an older transformers than training does, so it lives in an environment of its own (`pip install
"optimum[onnx]" sentence-transformers onnxruntime`), whose interpreter `BRAID_TEST_OPTIMUM_PYTHON` names; it needs no
network.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from app.config import load_settings
from app.embedding.encoder import load_encoder
from app.errors import ConfigurationError
from reranker.cross_encoder import CrossEncoder

PYTHON = os.environ.get("BRAID_TEST_OPTIMUM_PYTHON", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="BRAID_TEST_OPTIMUM_PYTHON names no interpreter with optimum")

TEXTS = ["how is drag measured", "a flat plate in a stream of air", "bread", "air " * 40]
MAKE = """
import json, sys
from pathlib import Path
import torch
from sentence_transformers import SentenceTransformer, models
from tokenizers import Tokenizer
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

out, tokenizer = Path(sys.argv[1]), sys.argv[2]
torch.manual_seed(4)
fast = PreTrainedTokenizerFast(tokenizer_file=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]",
    sep_token="[SEP]", mask_token="[MASK]", model_max_length=128,
    model_input_names=["input_ids", "token_type_ids", "attention_mask"])
shape = dict(vocab_size=30522, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
    max_position_embeddings=128, initializer_range=0.3)
for name, model in (("plain", BertModel(BertConfig(**shape))),
        ("cross", BertForSequenceClassification(BertConfig(**shape, num_labels=1)))):
    model.eval().save_pretrained(out / name); fast.save_pretrained(out / name)
word = models.Transformer(str(out / "plain"), max_seq_length=32)
whole = SentenceTransformer(modules=[word, models.Pooling(32, pooling_mode="cls"), models.Normalize()],
    prompts={"query": "ask: ", "document": "tell: "}, device="cpu")
whole.save_pretrained(str(out / "sentences"))
texts = json.loads(sys.argv[3])
pairs = fast([TEXT] * len(texts), texts, return_tensors="pt", padding=True, truncation=True)
cross = BertForSequenceClassification.from_pretrained(out / "cross").eval()
with torch.no_grad():
    logits = cross(input_ids=pairs["input_ids"], attention_mask=pairs["attention_mask"],
        token_type_ids=pairs["token_type_ids"]).logits[:, 0]
print(json.dumps({"queries": whole.encode(texts, prompt_name="query").tolist(), "logits": logits.tolist(),
    "passages": whole.encode(texts, prompt_name="document").tolist()}))
""".replace("TEXT]", '"drag of a plate"]')


def run(*command: str) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> tuple[Path, dict[str, list]]:
    """Folders `plain`, `sentences` and `cross` of torch models, and what torch makes of the texts."""
    out = tmp_path_factory.mktemp("torch")
    said = run(PYTHON, "-c", MAKE, str(out), str(model_folder / "tokenizer.json"), json.dumps(TEXTS))
    return out, json.loads(said.splitlines()[-1])


def export(source: Path, target: Path, *options: str) -> Path:
    run(str(Path(PYTHON).parent / "optimum-cli"), "export", "onnx", "--model", str(source), *options, str(target))
    return target


def copy(source: Path, target: Path, *names: str) -> None:
    """Copy files of sentence-transformers, which optimum leaves behind."""
    for name in names:
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_bytes((source / name).read_bytes())


LIMIT_AND_PROMPTS = ("sentence_bert_config.json", "config_sentence_transformers.json")


def test_an_export_of_sentence_transformers_pools_itself(made, tmp_path: Path) -> None:
    folder, expected = made
    options = ("--library-name", "sentence_transformers", "--task", "feature-extraction")
    target = export(folder / "sentences", tmp_path / "onnx", *options)
    settings = load_settings(embedding_path=target, embedding_model="own", embedding_provider="cpu")
    with pytest.raises(ConfigurationError, match="EMBEDDING_QUERY_PREFIX"):
        load_encoder(settings)
    copy(folder / "sentences", target, *LIMIT_AND_PROMPTS)
    encoder = load_encoder(settings)
    assert not encoder.gives_tokens
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), expected["queries"], atol=1e-4)
    np.testing.assert_allclose(encoder.encode_passages(TEXTS), expected["passages"], atol=1e-4)


def test_an_export_of_the_transformer_pools_by_the_folder_s_files(made, tmp_path: Path) -> None:
    folder, expected = made
    options = ("--library-name", "transformers", "--task", "feature-extraction")
    target = export(folder / "sentences", tmp_path / "onnx", *options)
    copy(folder / "sentences", target, *LIMIT_AND_PROMPTS, "modules.json", "1_Pooling/config.json")
    encoder = load_encoder(load_settings(embedding_path=target, embedding_model="own", embedding_provider="cpu"))
    assert (encoder.max_tokens, encoder.gives_tokens) == (32, True)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), expected["queries"], atol=1e-4)
    np.testing.assert_allclose(encoder.encode_passages(TEXTS), expected["passages"], atol=1e-4)


def test_an_exported_cross_encoder(made, tmp_path: Path) -> None:
    folder, expected = made
    target = export(folder / "cross", tmp_path / "onnx", "--task", "text-classification")
    model = CrossEncoder(target, threads=1, provider="cpu")
    assert model.max_tokens == 128
    np.testing.assert_allclose(model.score("drag of a plate", TEXTS).logits, expected["logits"], atol=1e-4)
