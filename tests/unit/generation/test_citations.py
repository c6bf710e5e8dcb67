from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.generation.citations import MarkFilter, best_quote, cite
from tests.unit.generation.passages import hit


def filtered(pieces: list[str], passages: int) -> tuple[str, list[str]]:
    marks = MarkFilter(passages)
    return "".join([*map(marks.feed, pieces), marks.finish()]), marks.dropped


@pytest.mark.parametrize(
    ("said", "shown", "dropped"),
    [
        ("It is so [1].", "It is so [1].", []),
        ("So [1, 2] and [2][3].", "So [1][2] and [2][3].", []),
        ("So 【2】 it is.", "So [2] it is.", []),
        ("So [2†source].", "So [2†source].", []),
        ("Wrong [7].", "Wrong .", ["[7]"]),
        ("Half right [1, 7].", "Half right [1].", ["[1, 7]"]),
        ("Zero [0] counts as none.", "Zero  counts as none.", ["[0]"]),
        ("An array a[i] and [see below] stay.", "An array a[i] and [see below] stay.", []),
        ("Open at the end [1", "Open at the end [1", []),
        ("Brackets [ ] stay, [[1]] too.", "Brackets [ ] stay, [[1]] too.", []),
        ("[" + "1" * 40, "[" + "1" * 40, []),
    ],
)
def test_marks(said: str, shown: str, dropped: list[str]) -> None:
    assert filtered([said], 3) == (shown, dropped)
    assert filtered(list(said), 3) == (shown, dropped)


@example(["[[9]9]"])
@example(["[1[9", "]2]"])
@given(st.lists(st.text(alphabet="a1 2,[]【】;9x", max_size=12), max_size=10))
def test_pieces_do_not_matter_and_no_unknown_passage_is_named(pieces: list[str]) -> None:
    shown, _ = filtered(pieces, 2)
    assert shown == filtered(["".join(pieces)], 2)[0]
    assert not {int(found) for found in re.findall(r"\[(\d{1,3})\]", shown)} - {1, 2}


def test_a_citation_quotes_the_sentence_that_says_it() -> None:
    hits = [
        hit("The tower was built in 1870. Its lamp turns once a minute.", "a"),
        hit("Keepers live in the cottage. They get two weeks of leave.", "b"),
    ]
    found = cite(
        "The lamp turns every minute [1]. Two weeks of leave are given [2]. Built in 1870 [1].",
        [[found] for found in hits],
    )
    assert [(c.marker, c.document_id) for c in found] == [(1, "a"), (2, "b")]
    assert found[1].quote == "They get two weeks of leave."
    assert all(c.quote in hits[c.marker - 1].text for c in found)


def test_a_very_long_sentence_is_cut_at_a_word() -> None:
    quote = best_quote("word7", " ".join(f"word{n}" for n in range(500)))
    assert len(quote) <= 600
    assert quote.split()[-1].startswith("word")
    assert best_quote("x", "") == ""
    assert len(best_quote("x", "y" * 2000)) == 600
