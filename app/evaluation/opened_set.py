"""Opening of a judged set: its corpus in an index of its own; progress bars over its queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from app.config import Settings
from app.deadline import Deadline
from app.errors import ConfigurationError
from app.evaluation.collect import Load
from app.evaluation.dataset import JudgedSet, load_set, sample_queries
from app.evaluation.report import write_files
from app.evaluation.scratch import ScratchIndex, prepare
from app.evaluation.target import EvaluationTarget
from app.ingest.progress import ProgressBar, new_bar
from app.search.readiness_gate import require_ready
from app.search.rerankers import load_reranker
from app.serving.opening import Store, open_store
from app.store import tunings
from app.tuning import Tuning

_SHOWN_REASONS = 5
_FIRST_ANSWER_MS = 60_000
"""Timeout of the reranker's first answer: its server may still be loading the model."""


@dataclass(frozen=True, slots=True)
class SetOptions:
    """Options of a set: source, ingest, limits on the cluster's load, and the folder for reports."""

    folder: Path
    qrels: Path | None = None
    split: str | None = None
    most_queries: int | None = None
    whole: bool = False
    keep: bool = False
    ignore_identical: bool = False
    load: Load = field(default_factory=Load)
    out: Path | None = None

    @property
    def reports(self) -> Path:
        return self.out or Path("reports") / self.folder.resolve().name


@dataclass(slots=True)
class OpenSet:
    """A judged set that is ready to be searched; `scratch` is None if the store's content is searched.

    With `unfinished` its index is kept, so that repeating the command need not fill it again.
    """

    store: Store
    judged: JudgedSet
    where: EvaluationTarget
    tuning: Tuning
    scratch: ScratchIndex | None
    notes: tuple[str, ...]
    unfinished: bool = False


@contextmanager
def open_set(settings: Settings, options: SetOptions, console: Console) -> Iterator[OpenSet]:
    """Read the set, ingest its corpus into an index of its own, and remove the index at the end unless it is to be
    kept.

    The index of an interrupted run is kept, so that repeating the command resumes.
    """
    _require_extra()
    judged = load_set(options.folder, qrels=options.qrels, split=options.split)
    if options.most_queries is not None:
        judged = sample_queries(judged, options.most_queries)
    for finding in judged.findings:
        console.print(f"{finding.kind}: {finding.count} x {finding.detail}", style="yellow", markup=False)
    write_files(options.reports, {})  # fail before the work if the folder can't be created
    store = open_store(settings)
    reranker = load_reranker(settings, store.encoder)
    if reranker is not None:
        # a server names its model, and so its tuned share, when first reached; fail before the work if it is
        # unavailable
        reranker.score_texts("a query", ["a text"], Deadline.after(_FIRST_ANSWER_MS))
    tuning = tunings.active(store.cluster)
    state = store.state(tuning)
    require_ready(state)
    where = EvaluationTarget(
        store.cluster,
        settings.access.tenant,
        store.encoder,
        settings,
        state.shards,
        options.ignore_identical,
        reranker,
    )
    if judged.corpus is None:
        yield OpenSet(store, judged, where, tuning, None, ())
        return
    with ProgressBar(console) as progress:
        scratch = prepare(
            judged,
            settings=settings,
            cluster=store.cluster,
            rendered=store.rendered_for(tuning),
            encoder=store.encoder,
            whole=options.whole,
            progress=progress,
        )
    notes = tuple(_not_stored(scratch))
    for note in notes:
        console.print(note, style="yellow", markup=False)
    scratch.similarity(tuning.bm25)
    where = replace(where, cluster=scratch.cluster, shards=settings.index.shards)
    opened = OpenSet(store, judged, where, tuning, scratch, notes)
    yield opened
    if options.keep or opened.unfinished:
        console.print(f"the index {scratch.index} was kept", markup=False)
    else:
        scratch.drop()


@contextmanager
def query_bars(console: Console, descriptions: Sequence[str], total: int) -> Iterator[list[Callable[[int], None]]]:
    """Show progress bars over queries, one below the other; nothing if the console is not a terminal."""
    with new_bar(console, "queries") as bar:
        yield [partial(bar.advance, bar.add_task(description, total=total)) for description in descriptions]


def _require_extra() -> None:
    try:
        import ir_measures  # noqa: F401
        import matplotlib  # noqa: F401
        import scipy  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            f"evaluating needs the extra `evaluation` ({error.name} is missing): pip install 'braid-rag[evaluation]', "
            "or `make up` in a clone, which installs it"
        ) from error


def _not_stored(scratch: ScratchIndex) -> Iterator[str]:
    """Report documents that could not be stored, since they can't be found."""
    failed = scratch.report.failed
    if failed:
        shown = "; ".join(f"{item.place}: {item.detail}" for item in failed[:_SHOWN_REASONS])
        yield f"{len(failed)} documents of the corpus could not be stored: {shown}"
