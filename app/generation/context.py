"""What is shown to the language model: results that follow each other in one piece, and what stands beside them.

A passage is cut to be found, not to be read: its first "it" may mean something in the passage before, its list may go
on in the next. So results of one document that follow each other become one block in reading order, and with the tokens
left over each result is widened by its neighbours in the same section, best result first. The marker n of results[n-1]
covers the neighbours shown with it; a citation names the passage that its quote is from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from app.errors import DeadlineExceeded, StoreError
from app.passage import Hit
from app.store.neighbours import Place

CountTokens = Callable[[str], int]
Fetch = Callable[[Sequence[Place]], Mapping[Place, Hit]]
"""The passages at some places, as far as the caller may see them; raises StoreError or DeadlineExceeded."""

NEIGHBOURS = 1
_FRAME_TOKENS = 20
"""About what the tags around a passage take."""
_LONGEST_OVERLAP = 2_000
"""Characters: more than BRAID_PASSAGE_OVERLAP allows (100 tokens)."""
_SHORTEST_OVERLAP = 12
"""Characters below which equal ends and beginnings are chance."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A passage in a block, shown under `marker`. `text` is the passage's, less what the segment before has said."""

    marker: int
    hit: Hit
    text: str


@dataclass(frozen=True, slots=True)
class Context:
    """Blocks of segments that follow each other in their document; the block of the best result first.

    `results`: those that are in it, best first. `degraded`: (stage, reason) pairs.
    """

    blocks: tuple[tuple[Segment, ...], ...]
    results: tuple[Hit, ...]
    degraded: tuple[tuple[str, str], ...] = ()

    @property
    def passages(self) -> list[list[Hit]]:
        """For each marker, from 1: its result, then the neighbours that are shown with it."""
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
    """As many whole results, best first, as `max_tokens` hold (at least one), and their neighbours in what is left.

    Args:
        hits: results, best first.
        fetch: reads neighbours; None: there are none. Where it fails the context goes without, and says so.
        max_tokens: bound on the tokens of the passages, as `count_tokens` counts them.
        count_tokens: of any tokenizer; a rough bound is all that is needed.
        neighbours: passages to add on each side of a result.
    """
    shown, left = _fitting(hits, max_tokens, count_tokens)
    near: Mapping[Place, Hit] = {}
    degraded: tuple[tuple[str, str], ...] = ()
    if fetch is not None and left > 0:
        wanted = _beside(shown, neighbours)
        try:
            near = fetch(wanted) if wanted else {}
        except (StoreError, DeadlineExceeded):
            degraded = (("context", "store-unavailable: neighbours were not added"),)
    added = _widen(shown, near, left, count_tokens, neighbours)
    return Context(_blocks(shown, added), tuple(shown), degraded)


def _fitting(hits: Sequence[Hit], max_tokens: int, count_tokens: CountTokens) -> tuple[Sequence[Hit], int]:
    """The results that fit, and the tokens left; none where a result did not fit: it would have come first."""
    used = 0
    for number, hit in enumerate(hits):
        tokens = count_tokens(f"{hit.title} {hit.section_heading} {hit.text}") + _FRAME_TOKENS
        if number and used + tokens > max_tokens:
            return hits[:number], 0
        used += tokens
    return hits, max_tokens - used


def _beside(hits: Sequence[Hit], neighbours: int) -> list[Place]:
    """The places beside `hits` that are not among them. Passages of an unknown version have none."""
    have = {Place.of(hit) for hit in hits}
    return [place for _, place in _steps(hits, neighbours) if place not in have]


def _steps(hits: Sequence[Hit], neighbours: int) -> Iterable[tuple[Hit, Place]]:
    """Places to add with the result that wants each: nearest first, then best result first, what follows first."""
    for distance in range(1, neighbours + 1):
        for hit in hits:
            for position in (hit.position + distance, hit.position - distance):
                if hit.content_hash and position >= 0:
                    yield hit, Place(hit.document_id, hit.content_hash, position)


def _widen(
    hits: Sequence[Hit], near: Mapping[Place, Hit], left: int, count_tokens: CountTokens, neighbours: int
) -> list[Hit]:
    """Those of `near` that fit in `left` tokens, in the section of their result and without a gap to it."""
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
    """Segments of passages that follow each other; a neighbour is shown with the nearest result of its section."""
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
        text = _without_overlap(run[len(found) - 1].text, hit.text) if found else hit.text
        found.append(Segment(markers[nearest.id], hit, text))
    return tuple(found)


def _without_overlap(before: str, text: str) -> str:
    """`text` without the sentences at its beginning that end `before` (BRAID_PASSAGE_OVERLAP repeats them)."""
    for length in range(min(len(before), len(text), _LONGEST_OVERLAP), _SHORTEST_OVERLAP - 1, -1):
        # whole words only: the end of one may be the beginning of another
        if (
            before.endswith(text[:length])
            and text[length : length + 1].isspace()
            and (length == len(before) or before[-length - 1].isspace())
        ):
            return text[length:].lstrip() or text
    return text
