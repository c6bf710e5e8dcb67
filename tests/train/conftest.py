"""Tests that need the extra `train`: `make test-train`. Models are tiny and made here, from stated seeds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
torch = pytest.importorskip("torch", reason="training needs the extra `train`: make train")

from reranker.rankings import Candidate, Ranking  # noqa: E402

WORDS = [f"word{number}" for number in range(60)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_tokenizer(folder: Path) -> None:
    """A word-level tokenizer in BERT's form over `WORDS`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def tiny_config(**changed: Any) -> Any:
    from transformers import BertConfig

    shape = {
        "vocab_size": len(SPECIAL) + len(WORDS),
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 128,
        "max_position_embeddings": 64,
        "num_labels": 1,
    }
    return BertConfig(**{**shape, **changed})


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a cross-encoder of random weights."""
    from transformers import BertForSequenceClassification

    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(7)
    BertForSequenceClassification(tiny_config(initializer_range=0.3)).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare encoder, as a Hugging Face folder."""
    from transformers import BertModel

    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(8)
    BertModel(tiny_config(initializer_range=0.1)).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def rankings() -> list[Ranking]:
    """Queries of two words; the relevant passage holds both, the next ones hold one, the others none."""
    rng = np.random.default_rng(3)
    made = []
    for number in range(60):
        first = number % 30
        second = (first + 1 + number // 30) % 30
        rest = [WORDS[index] for index in range(30, 60)]
        passages = [[WORDS[first], WORDS[second]], [WORDS[first]], [WORDS[second]], [], [], []]
        candidates = [
            Candidate(
                f"{number}/{place}",
                " ".join([*kept, *rng.choice(rest, 6 - len(kept), replace=False)]),
                float(rng.random()),
                float(place == 0),
            )
            for place, kept in enumerate(passages)
        ]
        candidates.sort(key=lambda item: -item.score)
        made.append(Ranking(f"q{number}", f"{WORDS[first]} {WORDS[second]}", tuple(candidates)))
    return made


class Overlap:
    """A teacher that counts the query's words in the passage."""

    name = "overlap"

    def __init__(self) -> None:
        self.asked = 0

    def scores(self, ranking: Ranking) -> Any:
        self.asked += 1
        words = set(ranking.query.split())
        return np.array([float(len(words & set(item.text.split()))) for item in ranking.candidates])


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
