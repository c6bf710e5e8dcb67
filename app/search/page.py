"""The page of a search: the passages of the best candidates that the caller may see, in the requested shape."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from app.errors import DeadlineExceeded, StoreUnavailable
from app.passage import Hit
from app.search.fusion import FusedCandidate
from app.search.plan import Way
from app.search.request import SearchRequest
from app.search.retrieval import GRACE_S, Retrieval
from app.search.shaping import Shape, ShapedHits, shape
from app.search.stages import Passages, Ranking, ResultPage, SearchCall
from app.search.trace import Trace, count_stage
from app.store.filters import Scope
from app.store.head_check import HeadCheck, Heads, Name, heads_of
from app.store.heads import Head

_UNSHAPED = Shape()
_MIN_READ_AHEAD = 20
"""Minimum number of candidates to read at once if the page is made from more than it shows."""
_Marks = Mapping[str, Mapping[str, tuple[str, ...]]]
_Vectors = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class _Part:
    """Visible passages of some candidates, in order; `passages` are all that were read so far."""

    hits: list[Hit]
    passages: Passages
    highlights: _Marks = field(default_factory=dict)
    vectors: _Vectors = field(default_factory=dict)


class PageStage:
    """Builds pages. Thread-safe."""

    def __init__(self, retrieval: Retrieval, executor: Executor, heads: HeadCheck | None = None) -> None:
        """Create the stage; without `heads` everything found is shown."""
        self._retrieval = retrieval
        self._executor = executor
        self._heads = heads

    @property
    def checks(self) -> bool:
        """Return whether heads decide which passages are visible."""
        return self._heads is not None

    def build(self, ranking: Ranking, call: SearchCall, heads: Heads | None, trace: Trace) -> ResultPage:
        """Return the requested page of a ranking.

        Args:
            heads: heads read so far; more are added; None: nothing is checked.

        Raises:
            StoreError, DeadlineExceeded: passages or heads could not be read.
        """
        make = self._plain if is_unshaped(call.request) else self._shaped
        return make(ranking, call, heads, trace)

    def is_outdated(self, page: ResultPage, call: SearchCall, heads: Heads | None, trace: Trace) -> bool:
        """Return whether documents were replaced during the search, so that it may have missed their passages.

        Raises:
            StoreError, DeadlineExceeded: heads could not be read.
        """
        vanished = page.ranking.passages.vanished
        if heads is None:
            return bool(vanished)
        gone = {item.document_id for item in page.ranking.fused if item.id in vanished}
        lost: set[Name] = {(key, "") for key in gone} | heads.lost
        self._read_heads(call, heads, trace, lost)
        twins = heads.twins(gone)
        self._read_heads(call, heads, trace, twins)
        return heads.replaced(lost | set(twins))

    def _plain(self, ranking: Ranking, call: SearchCall, heads: Heads | None, trace: Trace) -> ResultPage:
        request = call.request
        # hidden passages on earlier pages shift all later ones, so pages are counted from the first
        first = request.from_ if heads is None else 0
        count = call.window - first
        rest, hits = ranking.order[first : None if heads is not None else call.window], list[Hit]()
        highlights: dict[str, Mapping[str, tuple[str, ...]]] = {}
        ahead = count
        while rest and len(hits) < count:
            now, rest = rest[:ahead], rest[ahead:]
            part = self._part(ranking, call, heads, trace, now, highlight=request.highlight)
            ranking = replace(ranking, passages=part.passages)
            hits += part.hits
            highlights |= part.highlights
            ahead = max(_MIN_READ_AHEAD, count - len(hits))
        shown = tuple(hits[request.from_ - first : count])
        marks = {hit.id: highlights[hit.id] for hit in shown if hit.id in highlights}
        return ResultPage(ranking, shown, highlights=marks, short=len(hits) < min(count, len(ranking.order) - first))

    def _shaped(self, ranking: Ranking, call: SearchCall, heads: Heads | None, trace: Trace) -> ResultPage:
        """Read enough candidates to fill the page: folding and the limit depend on the hits above, MMR on all."""
        wanted, window = shape_of(call.request), call.window
        hits: list[Hit] = []
        vectors: dict[str, npt.NDArray[np.float32]] = {}
        arranged = ShapedHits(())
        rest = ranking.order[: call.depth]
        ahead = max(_MIN_READ_AHEAD, 2 * window) if wanted.mmr_lambda is None else len(rest)
        while rest and len(arranged.hits) < window:
            now, rest = rest[:ahead], rest[ahead:]
            part = self._part(ranking, call, heads, trace, now, vectors=wanted.mmr_lambda is not None)
            ranking = replace(ranking, passages=part.passages)
            hits += part.hits
            vectors |= part.vectors
            arranged = shape(hits, wanted, vectors, window)
        shown = arranged.hits[call.request.from_ : window]
        highlights: _Marks = {}
        if call.request.highlight and shown:
            ids, words = [hit.id for hit in shown], ranking.found.corrected
            found, passages = self._retrieval.fetch(call, trace, ranking.passages, ids, highlight=words)
            ranking, highlights = replace(ranking, passages=passages), found.highlights
        folded = {hit.id: arranged.folded[hit.id] for hit in shown if hit.id in arranged.folded}
        return ResultPage(ranking, shown, folded, highlights)

    def _part(
        self,
        ranking: Ranking,
        call: SearchCall,
        heads: Heads | None,
        trace: Trace,
        part: Sequence[FusedCandidate],
        *,
        vectors: bool = False,
        highlight: bool = False,
    ) -> _Part:
        """Return the visible passages of candidates, with highlights and vectors if requested.

        Heads are read in parallel with the passages: after the search that found them, and without extra time.
        """
        ids, passages = [item.id for item in part], ranking.passages
        names = heads.missing((item.document_id, "") for item in part) if heads is not None else []
        reads = vectors or highlight or any(key not in passages.hits for key in ids)
        job = None
        if heads is not None and names and reads:
            job = self._executor.submit(self._fetch_heads, call, heads.scope, trace, names)
        marks: _Marks = {}
        found: _Vectors = {}
        if vectors or highlight:
            words = ranking.found.corrected if highlight else None
            fetched, passages = self._retrieval.fetch(call, trace, passages, ids, vectors=vectors, highlight=words)
            marks, found = fetched.highlights, fetched.vectors
        else:
            passages = self._retrieval.read(call, trace, passages, ids)
        hits = list(_add_scores(part, passages.hits, ranking.found.plan.way))
        if heads is None:
            return _Part(hits, passages, marks, found)
        if job is None or job.cancel():  # there was nothing to read in parallel, or no thread was free
            self._read_heads(call, heads, trace, names)
        else:
            try:
                heads.add(job.result(max(0.0, call.deadline.at - time.monotonic()) + GRACE_S))
            except FutureTimeout as error:
                raise DeadlineExceeded(
                    f"timeout_ms={call.deadline.budget_ms} was spent in the stage 'heads'"
                ) from error
        named = heads_of((hit.document_id, hit.content_hash) for hit in hits)
        self._read_heads(call, heads, trace, named)  # heads of twins, if any
        shown = [hit for hit in hits if heads.shows(hit.document_id, hit.content_hash)]
        return _Part(shown, passages, marks, found)

    def _read_heads(self, call: SearchCall, heads: Heads, trace: Trace, names: Iterable[Name]) -> None:
        """Add the heads of `names` to `heads`, reading only missing ones. Raises StoreError, DeadlineExceeded."""
        missing = heads.missing(names)
        if missing:
            heads.add(self._fetch_heads(call, heads.scope, trace, missing))

    def _fetch_heads(self, call: SearchCall, scope: Scope, trace: Trace, names: Sequence[Name]) -> Collection[Head]:
        assert self._heads is not None  # noqa: S101 - heads are read only if the check is configured
        left = call.deadline.remaining_s("heads")
        with trace.timed("heads_ms"), count_stage("heads"):
            try:
                return self._heads.fetch(scope, names, left)
            except StoreUnavailable:
                call.deadline.remaining_s("heads")  # an exhausted budget is the caller's timeout, not an outage
                raise


def is_unshaped(request: SearchRequest) -> bool:
    """Return whether the page is simply the best candidates."""
    return shape_of(request) == _UNSHAPED


def shape_of(request: SearchRequest) -> Shape:
    """Return the shape that the request wants."""
    return Shape(request.max_per_document, request.fold_duplicates, request.mmr_lambda)


def _add_scores(candidates: Sequence[FusedCandidate], passages: Mapping[str, Hit], way: Way) -> Iterator[Hit]:
    """Yield the passages of candidates in order, with their scores, without those deleted meanwhile."""
    for item in candidates:
        if item.id in passages:
            fused = item.fused if way in ("legs", "native") else None
            yield replace(
                passages[item.id],
                score=item.score,
                lexical=item.lexical,
                dense=item.dense,
                fused=fused,
                rerank=item.rerank,
            )
