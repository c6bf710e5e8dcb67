from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.passage import Hit
from app.search.shaping import Shape, fold_duplicates, limit_per_document, mmr, shape

Vectors = dict[str, npt.NDArray[np.float32]]


def hit(name: str, text: str = "", document_id: str = "", score: float = 1.0) -> Hit:
    return Hit(
        id=name, document_id=document_id or name, title="", section_heading="", text=text, source_id="",
        source_type="text", uri="", page=None, position=0, timestamp=None, topic_tags=(), score=score,
    )  # fmt: skip


def names(hits: list[Hit] | tuple[Hit, ...]) -> str:
    return "".join(found.id for found in hits)


def words(count: int, seed: int = 0) -> list[str]:
    chosen = random.Random(seed)
    return ["".join(chosen.choices("abcdefgh", k=6)) for _ in range(count)]


def changed(text: list[str], *places: int) -> str:
    return " ".join(f"other{place}" if place in places else word for place, word in enumerate(text))


def test_the_first_of_each_document_are_kept_in_their_order() -> None:
    hits = [hit(name, document_id=document) for name, document in zip("abcdef", "xxyxyz", strict=True)]
    assert names(limit_per_document(hits, 1)) == "acf"
    assert names(limit_per_document(hits, 2)) == "abcef"
    assert names(limit_per_document(hits, 9)) == "abcdef"


def test_a_near_copy_is_folded_into_the_best() -> None:
    text = words(200)
    hits = [
        hit("a", " ".join(words(200, 1))),
        hit("b", " ".join(text)),
        hit("c", changed(text, 50, 120)),  # J = 186 / 206
        hit("d", changed(text, 50, 100, 150)),  # J = 181 / 211
        hit("e", "  ".join(text).upper()),
    ]
    kept, folded = fold_duplicates(hits)
    assert (names(kept), folded) == ("abd", {"b": ("c", "e")})
    assert fold_duplicates(hits, threshold=0.85)[1] == {"b": ("c", "d", "e")}
    assert fold_duplicates(hits, threshold=1.0)[1] == {"b": ("e",)}


def test_a_chain_of_small_changes_does_not_fold_its_ends() -> None:
    text = words(200)
    chain = [hit(str(n), changed(text, *range(0, 15 * n, 15))) for n in range(7)]  # each one word further away
    kept, folded = fold_duplicates(chain)
    assert (names(kept), folded) == ("036", {"0": ("1", "2"), "3": ("4", "5")})


def test_short_texts_fold_only_when_they_are_equal() -> None:
    texts = ["See page 4.", "see  PAGE 4.", "See page 5.", " ".join(words(11)), changed(words(11), 10)]
    kept, folded = fold_duplicates([hit(str(n), text) for n, text in enumerate(texts)])
    assert (names(kept), folded) == ("0234", {"0": ("1",)})


def test_a_script_without_spaces_is_compared_by_characters() -> None:
    text = "".join(chr(0x4E00 + n * 7) for n in range(200))
    kept, folded = fold_duplicates([hit("a", text), hit("b", text[:90] + "人" + text[91:]), hit("c", text[::-1])])
    assert (names(kept), folded) == ("ac", {"a": ("b",)})


def test_thousands_of_words_that_repeat_themselves() -> None:
    kept, _ = fold_duplicates([hit("a", "tick " * 500), hit("b", "tick " * 400), hit("c", "tock " * 400)])
    assert names(kept) == "ac"  # both are one shingle


def shingles(text: str) -> set[tuple[str, ...]]:
    split = text.casefold().split()
    return {tuple(split[n : n + 5]) for n in range(len(split) - 4)}


def jaccard(left: str, right: str) -> float:
    a, b = shingles(left), shingles(right)
    return len(a & b) / len(a | b)


def edits() -> st.SearchStrategy[list[str]]:
    base = words(40)
    one = st.tuples(st.lists(st.integers(0, 39), max_size=3), st.integers(0, 4))
    return st.lists(one.map(lambda edit: changed(base[edit[1] :], *edit[0])), max_size=8)


@given(edits(), st.sampled_from([0.5, 0.8, 0.9, 1.0]))
def test_folding_is_exact(texts: list[str], threshold: float) -> None:
    kept, folded = fold_duplicates([hit(str(n), text) for n, text in enumerate(texts)], threshold=threshold)
    expected: list[int] = []
    groups: dict[int, list[int]] = {}
    for n, text in enumerate(texts):
        like = next((m for m in expected if jaccard(texts[m], text) >= threshold - 1e-12), None)
        if like is None:
            expected.append(n)
        else:
            groups.setdefault(like, []).append(n)
    assert [int(found.id) for found in kept] == expected
    assert folded == {str(like): tuple(map(str, rest)) for like, rest in groups.items()}


def unit(*values: float) -> npt.NDArray[np.float32]:
    return np.asarray(values, np.float32) / math.hypot(*values)


def test_mmr_by_hand() -> None:
    hits = [hit("a", score=1.0), hit("b", score=0.9), hit("c", score=0.5), hit("d", score=0.0)]
    vectors = {"a": unit(1, 0), "b": unit(1, 0), "c": unit(0, 1), "d": unit(-1, 0)}
    # after a: b .45 - .5, c .25 - 0, d 0 - 0 (an opposite is no more than unlike); after c: b .45 - .5, d 0
    assert names(mmr(hits, vectors, lam=0.5, count=4)) == "acdb"
    assert names(mmr(hits, vectors, lam=0.5, count=2)) == "acbd"
    assert names(mmr(hits, vectors, lam=0.9, count=4)) == "abcd"


def test_a_passage_without_a_vector_is_unlike_all() -> None:
    hits = [hit("a", score=1.0), hit("b", score=0.9), hit("c", score=0.8)]
    vectors = {"a": unit(1, 1), "b": unit(1, 1)}
    assert names(mmr(hits, vectors, lam=0.3, count=3)) == "acb"
    assert names(mmr(hits, {}, lam=0.3, count=3)) == "abc"


def test_a_full_document_is_not_picked_and_pushes_nothing_away() -> None:
    hits = [hit("a", document_id="x"), hit("b", document_id="x", score=0.9), hit("c", score=0.8), hit("d", score=0.0)]
    vectors = {"a": unit(1, 0, 0), "b": unit(0, 1, 0), "c": unit(0, 1, 0), "d": unit(0, 0, 1)}
    assert names(mmr(hits, vectors, lam=0.5, count=4)) == "abdc"
    assert names(mmr(hits, vectors, lam=0.5, count=4, max_per_document=1)) == "acdb"


@st.composite
def candidates(draw: st.DrawFn) -> tuple[list[Hit], Vectors]:
    seed, size = draw(st.integers(0, 10_000)), draw(st.integers(0, 30))
    rng = np.random.default_rng(seed)
    scores = sorted(np.round(rng.random(size), 1).tolist(), reverse=True)
    texts = [" ".join(words(30, int(n))) for n in rng.integers(0, max(1, size // 2), size)]
    documents = rng.integers(0, 6, size)
    hits = [
        hit(f"{n:02}", text, f"d{document}", score)
        for n, (text, document, score) in enumerate(zip(texts, documents, scores, strict=True))
    ]
    rows = rng.normal(size=(size, 3)).astype(np.float32)
    return hits, {found.id: unit(*row) for found, row in zip(hits, rows, strict=True) if rng.random() < 0.8}


SHAPES = st.builds(
    Shape,
    max_per_document=st.none() | st.integers(1, 4),
    fold_duplicates=st.booleans(),
    mmr_lambda=st.none() | st.sampled_from([0.0, 0.3, 0.7, 1.0]),
)


@given(candidates(), SHAPES, st.integers(1, 12))
def test_pages_are_cuts_of_one_list(given_: tuple[list[Hit], Vectors], wanted: Shape, size: int) -> None:
    hits, vectors = given_
    pages = [shape(hits, wanted, vectors, end).hits[end - size : end] for end in range(size, 31 + size, size)]
    paged = [found.id for page in pages for found in page]
    whole = shape(hits, wanted, vectors, len(hits)).hits
    assert paged == [found.id for found in whole]
    assert len(set(paged)) == len(paged)


@given(candidates(), SHAPES, st.integers(0, 30))
def test_nothing_is_lost_but_what_was_folded_or_left_out(
    given_: tuple[list[Hit], Vectors], wanted: Shape, count: int
) -> None:
    hits, vectors = given_
    shaped = shape(hits, wanted, vectors, count)
    if wanted == Shape():
        assert list(shaped.hits) == hits
    if not wanted.fold_duplicates:
        assert not shaped.folded
    if wanted.max_per_document is None:
        everything = [found.id for found in shaped.hits] + [name for group in shaped.folded.values() for name in group]
        assert sorted(everything) == [found.id for found in hits]
    else:
        assert max(Counter(found.document_id for found in shaped.hits).values(), default=0) <= wanted.max_per_document
    assert set(shaped.folded) <= {found.id for found in shaped.hits}


@given(candidates(), st.integers(0, 30))
def test_lambda_one_is_the_order_given(given_: tuple[list[Hit], Vectors], count: int) -> None:
    hits, vectors = given_
    assert mmr(hits, vectors, lam=1.0, count=count) == hits


@pytest.mark.parametrize("hits", [[], [hit("a")]])
def test_few(hits: list[Hit]) -> None:
    assert list(shape(hits, Shape(1, True, 0.5), {}, 10).hits) == hits
