"""A calibration made from nothing but passages, by the real model, and read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from app.calibration import calibration_for
from app.config import load_settings
from app.embedding.encoder import Encoder
from app.embedding.token_vectors import token_vectors_for
from app.errors import InvalidInput
from app.evaluation.calibrate import Collection, card_of, make_calibration, write_calibration
from app.evaluation.thresholds import (
    RELATED,
    UNRELATED,
    CosineScale,
    Vectors,
    abstention,
    choose_thresholds,
    near_pairs,
    near_threshold,
    thresholds_at,
)
from app.evaluation.token_projection import lloyd, sample_tokens
from app.generation.evidence import Evidence, Sentence

TOPICS = (
    "pump",
    "wing",
    "poem",
    "virus",
    "tax",
    "guitar",
    "glacier",
    "bread",
    "satellite",
    "vineyard",
    "chess",
    "harbour",
)
PASSAGES = [
    f"The {topic} number {number} was described in the second report of the year. Its makers say that the {topic} "
    f"needs care every {number + 2} months. Nobody has yet written about the colour of a {topic}."
    for number, topic in enumerate(TOPICS)
]


def evidence(cosine: float, coverage: float = 0.0) -> Evidence:
    return Evidence((Sentence(1, "a sentence", cosine, 0.0, cosine),), cosine, coverage)


def test_minilm_s_own_medians_give_minilm_s_own_thresholds() -> None:
    scale = CosineScale(UNRELATED, RELATED)
    found = thresholds_at(scale, 0.4)
    assert (found.min_cosine, found.min_covered_cosine, found.min_coverage) == (0.4, 0.2, 0.67)
    assert (found.zero_cosine, found.cosine_unit) == (pytest.approx(0), pytest.approx(1))


def test_thresholds_follow_the_scale_of_the_model() -> None:
    scale = CosineScale(0.5, 0.7)
    found = thresholds_at(scale, 0.4)
    assert 0.5 < found.min_covered_cosine < found.min_cosine < 0.7 + 0.05


def test_minilm_s_threshold_is_lowered_until_own_questions_are_answered() -> None:
    scale = CosineScale(UNRELATED, RELATED)
    foreign = {"a": [evidence(0.3), evidence(0.38), evidence(0.5)]}
    hard = {"a": [evidence(0.36)] * 20 + [evidence(0.9)] * 80, "b": [evidence(0.9)] * 100}
    found, figures = choose_thresholds(scale, hard, foreign)
    assert found.min_cosine == 0.35
    assert abstention(foreign["a"], found) == pytest.approx(1 / 3)
    assert [row["min_cosine"] for row in figures["withheld, %"]][:2] == [0.2, 0.25]
    by_chance = {"a": [evidence(0.1)] * 5 + [evidence(0.9)] * 195}
    assert choose_thresholds(scale, by_chance, {})[0].min_cosine == 0.4
    assert choose_thresholds(scale, {"a": [evidence(0.9)] * 500}, {})[0].min_cosine == 0.4  # never above MiniLM's
    assert choose_thresholds(scale, {"a": [evidence(0.1)] * 10}, {})[0].min_cosine == 0.2
    assert choose_thresholds(scale, {}, {})[0].min_cosine == 0.4


class Told:
    """Gives the first of each pair one axis, and the second a vector at the cosine that was told."""

    def __init__(self, *cosines: float) -> None:
        self._cosines = list(cosines)
        self._first = True

    def encode_queries(self, texts: list[str]) -> Vectors:
        first, self._first = self._first, False
        cosines = np.ones(len(texts)) if first else np.array(self._cosines)
        return np.column_stack([cosines, np.sqrt(1 - cosines**2)]).astype(np.float32)


@pytest.mark.parametrize(("lowest", "threshold"), [(0.86, 0.85), (0.951, 0.95), (0.52, 0.5), (0.3, 0.5)])
def test_the_near_threshold_refuses_no_pair(lowest: float, threshold: float) -> None:
    found, _ = near_threshold(Told(0.97, lowest), [("a", "b"), ("c", "d")])  # type: ignore[arg-type]
    assert found == threshold


def test_there_are_pairs_of_one_normal_form() -> None:
    assert len(near_pairs()) > 100


def test_levels_are_in_order() -> None:
    levels = lloyd(np.random.default_rng(0).normal(size=2000), 2)
    assert (np.diff(levels) > 0).all()


def test_from_passages_to_a_file_that_serves_the_model(minilm: Encoder, model_folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    tokens = sample_tokens(minilm, PASSAGES, tokenizer.get_vocab_size())
    made = make_calibration([Collection("mine", "our own", PASSAGES, tokens)], minilm, "mine", tokenizer)
    assert made.file.weight_model is None
    paths = write_calibration(made, tmp_path)
    assert {path.name for path in paths} == {"token_projection.npz", "fp32.json", "fp32.md"}
    found = calibration_for(load_settings(embedding_calibration=str(tmp_path)).embedding, "mine")
    assert found is not None
    assert found.answers == made.file.answers
    assert 0.1 < found.answers.min_covered_cosine < found.answers.min_cosine < 0.8
    assert found.near_min_cosine >= 0.75
    codec = token_vectors_for(found, 384)
    assert codec is not None
    _, hidden, ids = minilm.encode_query_with_tokens("the colour of a glacier")
    _, packed = minilm.encode_passages_with_tokens(PASSAGES, codec.pack)
    assert codec.score(codec.query(hidden, ids), packed).argmax() == TOPICS.index("glacier")
    card = card_of(made.file)
    assert "| mine | our own | 12 passages |" in card
    # int8 takes the projection over, and leaves fp32's file valid
    again = make_calibration([Collection("mine", "our own", PASSAGES)], minilm, "mine-int8", None, found)
    assert {path.name for path in write_calibration(again, tmp_path)} == {"int8.json", "int8.md"}
    int8 = calibration_for(load_settings(embedding_calibration=str(tmp_path)).embedding, "mine-int8")
    assert int8 is not None
    assert token_vectors_for(int8, 384) is codec


@pytest.mark.parametrize("passages", [[], ["one sentence only"], ["No words. At all."] * 5])
def test_too_little_text_is_named(minilm: Encoder, passages: list[str]) -> None:
    with pytest.raises(InvalidInput, match="scale of mine can't be measured: no two passages have two sentences"):
        make_calibration([Collection("mine", "our own", passages)], minilm, "mine", None)
