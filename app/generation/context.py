"""Context of the language model: adjacent results joined to blocks, and their neighbours.

Passages are cut for finding, not for reading: a first "it" may refer to the previous passage, a list may continue in
the next one. So adjacent results of one document become one block in reading order, and with the remaining tokens each
result is widened by its neighbours in the same section, best result first. The marker n of results[n-1] covers the
neighbours shown with it; a citation names the passage of its quote.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from app.degradation import Reason
from app.errors import DeadlineExceeded, StoreError
from app.passage import Hit
from app.store.neighbours import Place

CountTokens = Callable[[str], int]
Fetch = Callable[[Sequence[Place]], Mapping[Place, Hit]]
"""Function that reads the passages at some places, if visible to the caller; raises StoreError or DeadlineExceeded."""

NEIGHBOURS = 1
_FRAME_TOKENS = 20
"""Approximate tokens of the tags around a passage."""
_LONGEST_OVERLAP = 2_000
"""Maximum characters of an overlap: more than BRAID_PASSAGE_OVERLAP allows (100 tokens)."""
_SHORTEST_OVERLAP = 12
"""Number of characters below which an equal end and beginning are chance."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A passage in a block, shown under `marker`. `text` is the passage's text without what the previous segment
    contains.
    """

    marker: int
    hit: Hit
    text: str


@dataclass(frozen=True, slots=True)
class Context:
    """Blocks of adjacent segments of a document; the block of the best result comes first.

    `results` are the results in it, best first. `degraded` has (stage, reason) pairs.
    """

    blocks: tuple[tuple[Segment, ...], ...]
    results: tuple[Hit, ...]
    degraded: tuple[tuple[str, str], ...] = ()

    @property
    def passages(self) -> list[list[Hit]]:
        """Return by marker, from 1: the result, then the neighbours shown with it."""
        found = [[hit] for hit in self.results]
        for block in self.blocks:
            for segment in block:
                if segment.hit.id != self.results[segment.marker - 1].id:
                    found[segment.marker - 1].append(segment.hit)
        return found


def build_context(
    hits: Sequence[Hit],
    fetch: Fetch | None,
    *,
    max_tokens: int,
    count_tokens: CountTokens,
    neighbours: int = NEIGHBOURS,
) -> Context:
    """Return as many whole results as fit into `max_tokens`, best first (at least one), and neighbours in the remaining
    tokens.

    Args:
        fetch: reads neighbours; None: no neighbours. If it fails, the context has none and reports it.
        max_tokens: limit of the passages' tokens, as `count_tokens` counts them.
        count_tokens: counts tokens with any tokenizer; an approximation suffices.
        neighbours: passages to add on each side of a result.
    """
    shown, left = _fit_results(hits, max_tokens, count_tokens)
    near: Mapping[Place, Hit] = {}
    degraded: tuple[tuple[str, str], ...] = ()
    if fetch is not None and left > 0:
        wanted = _adjacent_places(shown, neighbours)
        try:
            near = fetch(wanted) if wanted else {}
        except (StoreError, DeadlineExceeded):
            degraded = (("context", Reason.STORE_UNAVAILABLE.with_detail("neighbours were not added")),)
    added = _widen(shown, near, left, count_tokens, neighbours)
    return Context(_blocks(shown, added), tuple(shown), degraded)


def _fit_results(hits: Sequence[Hit], max_tokens: int, count_tokens: CountTokens) -> tuple[Sequence[Hit], int]:
    """Return the results that fit and the remaining tokens; no tokens if a result did not fit, since it takes
    precedence.
    """
    used = 0
    for number, hit in enumerate(hits):
        tokens = count_tokens(f"{hit.title} {hit.section_heading} {hit.text}") + _FRAME_TOKENS
        if number and used + tokens > max_tokens:
            return hits[:number], 0
        used += tokens
    return hits, max_tokens - used


def _adjacent_places(hits: Sequence[Hit], neighbours: int) -> list[Place]:
    """Return the places adjacent to `hits` and not among them. Passages of an unknown version have none."""
    have = {Place.of(hit) for hit in hits}
    return [place for _, place in _steps(hits, neighbours) if place not in have]


def _steps(hits: Sequence[Hit], neighbours: int) -> Iterable[tuple[Hit, Place]]:
    """Yield results with places to add: nearest first, then best result first, following before preceding."""
    for distance in range(1, neighbours + 1):
        for hit in hits:
            for position in (hit.position + distance, hit.position - distance):
                if hit.content_hash and position >= 0:
                    yield hit, Place(hit.document_id, hit.content_hash, position)


def _widen(
    hits: Sequence[Hit], near: Mapping[Place, Hit], left: int, count_tokens: CountTokens, neighbours: int
) -> list[Hit]:
    """Return those of `near` that fit into `left` tokens, in their result's section and without a gap to it."""
    have = {Place.of(hit) for hit in hits}
    added = []
    for hit, place in _steps(hits, neighbours):
        found = near.get(place)
        if found is None or place in have or found.section_heading != hit.section_heading:
            continue
        side = 1 if place.position > hit.position else -1
        between = range(hit.position + side, place.position, side)
        if any(Place(place.document_id, place.content_hash, position) not in have for position in between):
            continue
        tokens = count_tokens(found.text)
        if tokens <= left:
            left -= tokens
            have.add(place)
            added.append(found)
    return added


def _blocks(hits: Sequence[Hit], added: Sequence[Hit]) -> tuple[tuple[Segment, ...], ...]:
    markers = {hit.id: marker for marker, hit in enumerate(hits, start=1)}
    versions: dict[tuple[str, str], list[Hit]] = defaultdict(list)
    for hit in (*hits, *added):
        versions[hit.document_id, hit.content_hash].append(hit)
    blocks = []
    for passages in versions.values():
        passages.sort(key=lambda hit: hit.position)
        run: list[Hit] = []
        for hit in passages:
            if run and hit.position != run[-1].position + 1:
                blocks.append(_segments(run, markers))
                run = []
            run.append(hit)
        blocks.append(_segments(run, markers))
    return tuple(sorted(blocks, key=lambda block: min(segment.marker for segment in block)))


def _segments(run: Sequence[Hit], markers: Mapping[str, int]) -> tuple[Segment, ...]:
    """Return segments of adjacent passages; a neighbour is shown with the nearest result of its section."""
    results = [hit for hit in run if hit.id in markers]
    found: list[Segment] = []
    for hit in run:
        nearest = min(
            results,
            key=lambda result: (
                result.section_heading != hit.section_heading,
                abs(result.position - hit.position),
                markers[result.id],
            ),
        )
        text = _remove_overlap(run[len(found) - 1].text, hit.text) if found else hit.text
        found.append(Segment(markers[nearest.id], hit, text))
    return tuple(found)


def _remove_overlap(before: str, text: str) -> str:
    """Remove sentences at the beginning of `text` that end `before` (BRAID_PASSAGE_OVERLAP repeats them)."""
    for length in range(min(len(before), len(text), _LONGEST_OVERLAP), _SHORTEST_OVERLAP - 1, -1):
        # whole words only: the end of one may be the beginning of another
        if (
            before.endswith(text[:length])
            and text[length : length + 1].isspace()
            and (length == len(before) or before[-length - 1].isspace())
        ):
            return text[length:].lstrip() or text
    return text
