from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import DeadlineExceeded, StoreError, StoreUnavailable
from app.generation.citations import cite
from app.generation.context import Context, build_context
from app.passage import Hit
from app.store.neighbours import Place
from tests.unit.generation.passages import hit


def count(text: str) -> int:
    return len(text.split())


def passage(position: int, document_id: str = "d", version: str = "v", text: str = "", section: str = "S") -> Hit:
    text = text or f"This is passage {position} of document {document_id}."
    return hit(text, document_id, "T", section, position=position, content_hash=version, page=position + 1)


class Store:
    """Holds passages; notes what was asked for."""

    def __init__(self, *passages: Hit) -> None:
        self.passages = {Place.of(found): found for found in passages}
        self.asked: list[Place] = []

    def __call__(self, places: Sequence[Place]) -> Mapping[Place, Hit]:
        self.asked += places
        return {place: self.passages[place] for place in places if place in self.passages}


def build(hits: Sequence[Hit], store: Store | None = None, max_tokens: int = 10_000, neighbours: int = 1) -> Context:
    return build_context(hits, store, max_tokens=max_tokens, count_tokens=count, neighbours=neighbours)


def shown(context: Context) -> list[list[tuple[int, str]]]:
    return [[(segment.marker, segment.hit.id) for segment in block] for block in context.blocks]


def test_results_that_follow_each_other_become_one_block_in_reading_order() -> None:
    hits = [passage(5), passage(0, "other"), passage(4), passage(7), passage(6, version="old")]
    assert shown(build(hits)) == [[(3, "d-4"), (1, "d-5")], [(2, "other-0")], [(4, "d-7")], [(5, "d-6")]]


def test_each_result_is_widened_by_its_neighbours() -> None:
    store = Store(*map(passage, range(10)), passage(6, version="old"))
    context = build([passage(5), passage(0, "other"), passage(2)], store)
    assert shown(context) == [
        [(3, "d-1"), (3, "d-2"), (3, "d-3"), (1, "d-4"), (1, "d-5"), (1, "d-6")],
        [(2, "other-0")],
    ]
    assert sorted(place.position for place in store.asked if place.document_id == "d") == [1, 3, 4, 6]
    assert [found.id for found in context.passages[0]] == [
        "d-5", "d-4", "d-6",
    ]  # fmt: skip


def test_a_neighbour_between_two_results_is_the_better_one_s() -> None:
    store = Store(*map(passage, range(10)))
    assert shown(build([passage(5), passage(3)], store))[0][2] == (1, "d-4")
    assert shown(build([passage(3), passage(5)], store))[0][2] == (1, "d-4")


def test_what_is_asked_for_is_never_a_result_before_the_first_or_of_an_unknown_version() -> None:
    store = Store()
    build([passage(0), passage(1), passage(4, version="")], store)
    assert store.asked == [Place("d", "v", 2)]
    unknown = Store()
    build([passage(4, version="")], unknown)
    assert unknown.asked == []


def test_another_section_is_another_subject() -> None:
    store = Store(passage(1, section="before"), passage(3))
    assert shown(build([passage(2)], store)) == [[(1, "d-2"), (1, "d-3")]]


def test_two_neighbours_a_side_without_a_gap() -> None:
    store = Store(*map(passage, (1, 3, 4, 5)), passage(0))
    assert shown(build([passage(2)], store, neighbours=2)) == [[(1, f"d-{n}") for n in range(5)]]
    gap = Store(passage(0), passage(3), passage(4))
    assert shown(build([passage(2)], gap, neighbours=2)) == [[(1, "d-2"), (1, "d-3"), (1, "d-4")]]


def test_neighbours_take_what_tokens_are_left_and_the_best_result_goes_first() -> None:
    hits = [passage(5), passage(0, "other")]
    store = Store(*map(passage, range(10)), passage(1, "other"))
    size, frame = count(passage(5).text), 22
    full = build(hits, store, max_tokens=2 * (size + frame) + size)
    assert shown(full) == [[(1, "d-5"), (1, "d-6")], [(2, "other-0")]]
    exact = Store(*map(passage, range(10)))
    assert shown(build(hits, exact, max_tokens=2 * (size + frame))) == [[(1, "d-5")], [(2, "other-0")]]
    assert exact.asked == []


def test_as_many_whole_results_as_fit_and_at_least_one() -> None:
    hits = [passage(2 * n, text="word " * 50) for n in range(3)]
    assert build(hits, max_tokens=150).results == tuple(hits[:2])
    assert build(hits, max_tokens=1).results == tuple(hits[:1])
    assert build([], max_tokens=1) == Context((), ())


@pytest.mark.parametrize("error", [StoreError("x"), StoreUnavailable("x"), DeadlineExceeded("x")])
def test_a_store_that_fails_means_no_neighbours_and_is_said(error: Exception) -> None:
    def fail(_: Sequence[Place]) -> Mapping[Place, Hit]:
        raise error

    context = build_context([passage(5)], fail, max_tokens=999, count_tokens=count)
    assert shown(context) == [[(1, "d-5")]]
    assert context.degraded == (("context", "store-unavailable: neighbours were not added"),)


@pytest.mark.parametrize(
    ("before", "text", "rest"),
    [
        ("One is here. Two is there.", "Two is there. Three.", "Three."),
        ("Two is there.", "Two is there. Three.", "Three."),
        ("One is here.\n\nTwo is there.", "Two is there.\n\nThree.", "Three."),
        ("One. Two is there. Two is there.", "Two is there. Two is there. Three.", "Three."),
        ("It was unto us a day.", "us a day. And then.", "us a day. And then."),  # too short to be more than chance
        ("We met the concatenate.", "concatenate. More.", "More."),
        ("We met the preconcatenate.", "concatenate. More.", "concatenate. More."),  # half a word
        ("All of this is said.", "All of this is said.", "All of this is said."),  # a passage is never left empty
        ("One is here.", "Three.", "Three."),
    ],
)
def test_sentences_that_chunking_repeats_are_said_once(before: str, text: str, rest: str) -> None:
    first, second = build([passage(1, text=before), passage(2, text=text)]).blocks[0]
    assert (first.text, second.text, second.hit.text) == (before, rest, text)


def test_a_quote_from_a_neighbour_names_the_neighbour() -> None:
    hits = [passage(1, text="The pump is primed with glycol."), passage(0, "other", text="Unrelated words.")]
    store = Store(passage(2, text="It then runs for forty hours. The pump is primed with glycol."))
    context = build(hits, store)
    found = cite("The pump is primed with glycol [1].", context.passages)
    assert [(c.marker, c.id, c.document_id, c.page, c.quote) for c in found] == [
        (1, "d-1", "d", 2, "The pump is primed with glycol.")
    ]
    found = cite("It runs for forty hours [1]. Words [2].", context.passages)
    assert [(c.marker, c.id, c.document_id, c.page, c.quote) for c in found] == [
        (1, "d-2", "d", 3, "It then runs for forty hours."),
        (2, "other-0", "other", 1, "Unrelated words."),
    ]


places = st.tuples(st.sampled_from("ab"), st.sampled_from(["", "v", "w"]), st.integers(0, 8))


@given(st.lists(places, max_size=8, unique=True), st.integers(0, 300), st.integers(0, 3))
def test_every_result_that_fits_is_shown_once_under_its_own_marker(
    chosen: list[tuple[str, str, int]], max_tokens: int, neighbours: int
) -> None:
    def make(document: str, version: str, position: int) -> Hit:
        return passage(position, f"{document}{version}", version, section=f"S{position // 4}")

    hits = [make(*place) for place in chosen]
    store = Store(*(make(document, version, n) for document in "ab" for version in "vw" for n in range(9)))
    context = build(hits, store, max_tokens, neighbours)
    assert not {Place.of(found) for found in hits} & set(store.asked)
    segments = [segment for block in context.blocks for segment in block]
    results = {found.id: marker for marker, found in enumerate(context.results, start=1)}
    assert {s.hit.id: s.marker for s in segments if s.hit.id in results} == results
    assert len({s.hit.id for s in segments}) == len(segments)
    for segment in segments:
        own = hits[segment.marker - 1]
        assert (segment.hit.document_id, segment.hit.content_hash) == (own.document_id, own.content_hash)
        assert abs(segment.hit.position - own.position) <= neighbours
        assert segment.hit.section_heading == own.section_heading
    for block in context.blocks:
        positions = [segment.hit.position for segment in block]
        assert positions == list(range(positions[0], positions[0] + len(block)))
    firsts = [min(segment.marker for segment in block) for block in context.blocks]
    assert firsts == sorted(firsts)
    behind = context.passages
    assert [group[0] for group in behind] == list(context.results) == hits[: len(context.results)]
    assert sum(map(len, behind)) == len(segments)
