"""Late interaction with the real embedding model."""

from __future__ import annotations

import numpy as np
import pytest

from app.calibration import calibration_for
from app.config import load_settings
from app.deadline import Deadline
from app.embedding.encoder import Encoder
from app.embedding.token_vectors import TokenVectors, token_vectors_for
from app.errors import ConfigurationError, DeadlineExceeded
from app.search.late_interaction import LateInteraction
from app.search.rerankers import load_reranker
from app.search.reranking import Subject
from tests.unit.generation.passages import hit

LONG = Deadline.after(600_000)
TEXTS = [
    "The cooling fan of the turbine is blocked by ice.",
    "Quarterly results were better than analysts had expected.",
    "Ice on the blades makes a turbine vibrate.",
    "A recipe for apple cake with cinnamon.",
    "The board met on Tuesday.",
    "Bearings must be greased twice a year.",
]
QUERY = "why does ice harm a turbine"


@pytest.fixture(scope="module")
def codec(minilm: Encoder) -> TokenVectors:
    found = token_vectors_for(calibration_for(load_settings().embedding, minilm.name), minilm.dimension)
    assert found is not None
    return found


@pytest.fixture
def reranker(minilm: Encoder, codec: TokenVectors) -> LateInteraction:
    return LateInteraction(minilm, codec, stored=True)


def subjects(packed: list[bytes | None]) -> list[Subject]:
    return [Subject(hit(text, position=n), tokens) for n, (text, tokens) in enumerate(zip(TEXTS, packed, strict=True))]


def stored(minilm: Encoder, codec: TokenVectors) -> list[bytes | None]:
    return list(minilm.encode_passages_with_tokens(TEXTS, codec.pack)[1])


def test_the_right_passages_come_first(reranker: LateInteraction) -> None:
    rated = reranker.score_texts(QUERY, TEXTS, LONG)
    assert set(np.argsort(-rated.scores)[:2].tolist()) == {0, 2}
    assert rated.truncated == 0


def test_stored_vectors_and_vectors_made_on_the_fly_score_alike(
    reranker: LateInteraction, minilm: Encoder, codec: TokenVectors
) -> None:
    packed = stored(minilm, codec)
    scoring = reranker.begin(QUERY, None)
    whole, fresh = subjects(packed), subjects([None] * len(TEXTS))
    assert scoring.blocks(whole) == [6]
    assert scoring.blocks(fresh) == [4, 2]
    assert scoring.score(fresh, LONG) == pytest.approx(scoring.score(whole, LONG), abs=0.02)
    assert scoring.blocks(fresh) == [6]  # they are known now


def test_bytes_of_another_projection_are_made_anew(
    reranker: LateInteraction, minilm: Encoder, codec: TokenVectors
) -> None:
    packed = stored(minilm, codec)
    foreign = [b"something else", packed[1][:-1] if packed[1] else None, *packed[2:]]
    scoring = reranker.begin(QUERY, None)
    found = scoring.score(subjects(foreign), LONG)
    assert found == pytest.approx(scoring.score(subjects(packed), LONG), abs=0.02)


def test_the_query_is_embedded_once_for_both(reranker: LateInteraction, minilm: Encoder) -> None:
    vector, encoded = reranker.encode_query(QUERY)
    assert np.array_equal(vector, minilm.encode_query(QUERY))
    fresh = subjects([None] * len(TEXTS))
    assert reranker.begin(QUERY, encoded).score(fresh, LONG) == pytest.approx(
        reranker.begin(QUERY, None).score(fresh, LONG)
    )


def test_what_can_not_be_done_in_time_is_not_begun(reranker: LateInteraction) -> None:
    reranker.score_texts(QUERY, TEXTS, LONG)  # times the model
    with pytest.raises(DeadlineExceeded, match="send fewer"):
        reranker.score_texts(QUERY, TEXTS * 500, Deadline.after(50))
    scoring = reranker.begin(QUERY, None)
    with pytest.raises(DeadlineExceeded):
        scoring.score(subjects([None] * len(TEXTS)), Deadline.after(1))
    # a moment of slowness is forgotten
    for _ in range(200):
        try:
            scoring.score(subjects([None] * len(TEXTS)), Deadline.after(20_000))
        except DeadlineExceeded:
            continue
        break
    else:
        pytest.fail("it never tried again")


def test_long_and_empty_texts_are_taken_and_what_was_cut_is_counted(reranker: LateInteraction) -> None:
    rated = reranker.score_texts(QUERY, ["", "word " * 200_000, "\ud800 half a character", TEXTS[0]], LONG)
    assert np.isfinite(rated.scores).all()
    assert rated.truncated == 1


def test_which_reranker_a_service_has(minilm: Encoder) -> None:
    found = load_reranker(load_settings(), minilm)
    assert found is not None
    assert (found.name, found.reads_tokens) == ("late-interaction/all-MiniLM-L6-v2", True)
    assert load_reranker(load_settings(reranker="none"), minilm) is None
    assert load_reranker(load_settings(token_vectors=False), minilm) is None
    asked = load_reranker(load_settings(token_vectors=False, reranker="late-interaction"), minilm)
    assert asked is not None
    assert not asked.reads_tokens


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"reranker": "cross-encoder"}, "BRAID_RERANKER_MODEL"),
        ({"reranker_url": "http://127.0.0.1:1", "reranker_model": "m"}, "leave one out"),
        ({"rerank_depth": 0}, "BRAID_RERANK_DEPTH"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(fields: dict[str, object], names: str) -> None:
    with pytest.raises(ConfigurationError, match=names):
        load_settings(**fields)


def test_no_more_tokens_are_read_than_allowed(reranker: LateInteraction) -> None:
    late = f"Apple cake with cinnamon and sugar. {TEXTS[2]}"
    whole, cut = (reranker.score_texts(QUERY, [late], LONG, max_tokens=most) for most in (None, 7))
    assert (whole.truncated, cut.truncated) == (0, 1)
    assert cut.scores[0] < whole.scores[0] - 0.1
