"""The page of a search: the passages of the best candidates that may be shown, shaped as asked for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from app.errors import DeadlineExceeded, StoreUnavailable
from app.passage import Hit
from app.search.fusion import Fused
from app.search.plan import Way
from app.search.request import SearchRequest
from app.search.retrieval import GRACE_S, Retrieval, Run, counted, timed
from app.search.shaping import Shape, Shaped, shape
from app.store.head_check import HeadCheck, Name, heads_of

AS_IT_IS = Shape()
_AHEAD = 20
"""Candidates that are read at once, at least, when the page is made from more than it shows."""
_Vectors = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Page:
    """`hits` is what is shown. `folded`: passage id -> ids of its near-duplicates. `highlights`: of each field.

    `short`: the candidates did not fill it, since some of them may not be shown.
    """

    hits: tuple[Hit, ...]
    folded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    highlights: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    short: bool = False


class PageStage:
    """Makes pages. Thread-safe."""

    def __init__(self, retrieval: Retrieval, executor: Executor, heads: HeadCheck | None = None) -> None:
        """`heads` None: whatever is found is shown."""
        self._retrieval = retrieval
        self._executor = executor
        self._heads = heads

    @property
    def checks(self) -> bool:
        return self._heads is not None

    def read(self, run: Run, way: Way, candidates: Sequence[Fused]) -> Page:
        """The page that the request asks for.

        Raises:
            StoreError, DeadlineExceeded: passages or heads could not be read.
        """
        request, wanted = run.request, shape_of(run.request)
        if wanted == AS_IT_IS:
            return self._plain(run, way, candidates)
        arranged = self._shaped(run, way, candidates[: run.depth], wanted)
        hits = arranged.hits[request.from_ : run.window]
        highlights: Mapping[str, Mapping[str, tuple[str, ...]]] = {}
        if request.highlight and hits:
            highlights = self._retrieval.fetch(run, [hit.id for hit in hits], highlight=True).highlights
        return Page(hits, {hit.id: arranged.folded[hit.id] for hit in hits if hit.id in arranged.folded}, highlights)

    def replaced(self, run: Run, candidates: Iterable[Fused]) -> bool:
        """Whether documents were replaced under the search, so that it may have missed what it should show of them.

        Args:
            run: whose page was made.
            candidates: all of them.

        Raises:
            StoreError, DeadlineExceeded.
        """
        if run.heads is None:
            return bool(run.vanished)
        gone = {item.document_id for item in candidates if item.id in run.vanished}
        lost: set[Name] = {(key, "") for key in gone} | run.heads.lost
        self._read_heads(run, lost)
        twins = run.heads.twins(gone)
        self._read_heads(run, twins)
        return run.heads.replaced(lost | set(twins))

    def _plain(self, run: Run, way: Way, candidates: Sequence[Fused]) -> Page:
        # what may not be shown on an earlier page moves up all that follows: then pages are counted from the first
        first = run.request.from_ if run.heads is None else 0
        count = run.window - first
        rest, hits = candidates[first : None if run.heads is not None else run.window], list[Hit]()
        highlights: dict[str, Mapping[str, tuple[str, ...]]] = {}
        ahead = count
        while rest and len(hits) < count:
            part, rest = rest[:ahead], rest[ahead:]
            found, marks, _ = self._part(run, way, part, highlight=run.request.highlight)
            hits += found
            highlights |= marks
            ahead = max(_AHEAD, count - len(hits))
        shown = tuple(hits[run.request.from_ - first : count])
        marks = {hit.id: highlights[hit.id] for hit in shown if hit.id in highlights}
        return Page(shown, highlights=marks, short=len(hits) < min(count, len(candidates) - first))

    def _shaped(self, run: Run, way: Way, candidates: Sequence[Fused], wanted: Shape) -> Shaped:
        """Reads as many candidates as fill the page: folding and the bound decide by what stands above, MMR by all."""
        hits: list[Hit] = []
        vectors: _Vectors = {}
        arranged = Shaped(())
        ahead = max(_AHEAD, 2 * run.window) if wanted.mmr_lambda is None else len(candidates)
        while candidates and len(arranged.hits) < run.window:
            part, candidates = candidates[:ahead], candidates[ahead:]
            found, _, more = self._part(run, way, part, vectors=wanted.mmr_lambda is not None)
            hits += found
            vectors |= more
            arranged = shape(hits, wanted, vectors, run.window)
        return arranged

    def _part(
        self, run: Run, way: Way, part: Sequence[Fused], *, vectors: bool = False, highlight: bool = False
    ) -> tuple[list[Hit], Mapping[str, Mapping[str, tuple[str, ...]]], _Vectors]:
        """The passages of candidates that may be shown, with highlights and vectors where they are asked for.

        The heads are read beside the passages: after the search that found these, and in no time of their own.
        """
        ids = [item.id for item in part]
        names = run.heads.missing((item.document_id, "") for item in part) if run.heads is not None else []
        reads = vectors or highlight or any(key not in run.passages for key in ids)
        job = self._executor.submit(self._read_heads, run, names) if names and reads else None
        marks: Mapping[str, Mapping[str, tuple[str, ...]]] = {}
        found: _Vectors = {}
        if vectors or highlight:
            fetched = self._retrieval.fetch(run, ids, vectors=vectors, highlight=highlight)
            marks, found = fetched.highlights, fetched.vectors
        else:
            self._retrieval.read(run, ids)
        hits = list(_scored(part, run.passages, way))
        if run.heads is None:
            return hits, marks, found
        if job is None or job.cancel():  # there was nothing to read beside, or no thread was free
            self._read_heads(run, names)
        else:
            try:
                job.result(max(0.0, run.deadline.at - time.monotonic()) + GRACE_S)
            except FutureTimeout as error:
                raise DeadlineExceeded(f"timeout_ms={run.deadline.budget_ms} was spent in the stage 'heads'") from error
        self._read_heads(run, heads_of((hit.document_id, hit.content_hash) for hit in hits))  # of twins, if any
        return [hit for hit in hits if run.heads.shows(hit.document_id, hit.content_hash)], marks, found

    def _read_heads(self, run: Run, names: Iterable[Name]) -> None:
        """Have heads in `run.heads`; what is there is not read again. Raises StoreError, DeadlineExceeded."""
        assert self._heads is not None and run.heads is not None  # noqa: S101, PT018 - the run has them if we do
        missing = run.heads.missing(names)
        if not missing:
            return
        left = run.deadline.remaining_s("heads")
        with timed(run, "heads_ms"), counted("heads"):
            try:
                self._heads.read(run.heads, missing, left)
            except StoreUnavailable:
                run.deadline.remaining_s("heads")  # a spent budget is the caller's timeout, not an outage
                raise


def shape_of(request: SearchRequest) -> Shape:
    """What the request wants its hits made into."""
    return Shape(request.max_per_document, request.fold_duplicates, request.mmr_lambda)


def _scored(candidates: Sequence[Fused], passages: Mapping[str, Hit], way: Way) -> Iterator[Hit]:
    """The passages of candidates, in their order and with their scores; one that was deleted meanwhile is left out."""
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
