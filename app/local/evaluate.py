"""`braid evaluate` and what it shares with `braid tune`: the set, its index, progress, the tables for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from app.config import Settings
from app.deadline import Deadline
from app.errors import ConfigurationError
from app.evaluation.collect import Load
from app.evaluation.dataset import JudgedSet, load_set, sample_queries
from app.evaluation.report import as_dict, write_files, write_reports
from app.evaluation.run import evaluate
from app.evaluation.scratch import Scratch, prepare
from app.evaluation.summary import Summary, summarise
from app.evaluation.where import Where
from app.ingest.progress import ProgressBar
from app.local.assets import Store, open_store
from app.local.output import print_json
from app.search.readiness import StoreState, require_ready
from app.search.rerankers import load_reranker
from app.store import templates, tunings
from app.tuning import Tuning

_SHOWN_REASONS = 5
_FIRST_ANSWER_MS = 60_000
"""Of a reranker: its server may still be loading the model."""
WIDE = 160
"""Columns of a table that goes into a file or a pipe."""


@dataclass(frozen=True, slots=True)
class SetOptions:
    """Which set, how it goes in, how hard the cluster may be worked, and where files are left."""

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
class Opened:
    """A judged set, ready to be searched; `scratch` None: against what the store holds.

    With `unfinished` its index stays, so that the same command again need not fill it.
    """

    store: Store
    judged: JudgedSet
    where: Where
    tuning: Tuning
    scratch: Scratch | None
    notes: tuple[str, ...]
    unfinished: bool = False


def run(settings: Settings, options: SetOptions, *, as_json: bool, console: Console) -> int:
    """`braid evaluate`; the exit code: 1 when queries failed.

    Raises:
        InvalidInput: the set can't be measured, with the file and the remedy.
        StoreError: the cluster is away or not ready; the same command again goes on where it was.
        RerankerError: the reranker is away, or fails.
    """
    with open_set(settings, options, console) as opened:
        names = ["Searching"] if opened.where.reranker is None else ["Searching", "Reranking"]
        with query_bars(console, names, len(opened.judged.queries)) as bars:
            found = evaluate(
                opened.judged,
                opened.where,
                opened.tuning,
                load=options.load,
                kept_in=options.reports,
                whole=options.whole if opened.scratch else None,
                progress=bars[0],
                reranked=bars[-1],
            )
        found = replace(found, notes=(*opened.notes, *found.notes))
        console.print("computing intervals and tests ...", style="dim")
        written = write_reports(found, options.reports)
        failed = max(way.failed for way in found.ways)
        opened.unfinished = failed > 0
    if not failed:
        (options.reports / "legs.jsonl").unlink(missing_ok=True)
    if as_json:
        print_json(as_dict(found))
    else:
        _print(summarise(found), console)
    for path in written:
        console.print(str(path), markup=False)
    if failed:
        told = f"{failed} of {len(found.dataset.queries)} queries failed; the same command again searches only these"
        console.print(told, style="red", markup=False)
    return 1 if failed else 0


@contextmanager
def open_set(settings: Settings, options: SetOptions, console: Console) -> Iterator[Opened]:
    """Read the set, bring its corpus into an index of its own, and remove that at the end unless it is to be kept.

    An index whose run broke off stays: the same command again goes on with it.
    """
    _require_extra()
    judged = _chosen(load_set(options.folder, qrels=options.qrels, split=options.split), options.most_queries)
    for finding in judged.findings:
        console.print(f"{finding.kind}: {finding.count} x {finding.detail}", style="yellow", markup=False)
    write_files(options.reports, {})  # a folder that can't be made is known before the work, not after it
    store = open_store(settings)
    reranker = load_reranker(settings, store.encoder)
    if reranker is not None:
        # a server names its model, and so its tuned share, when it is reached; one that is away is told before the work
        reranker.score_texts("a query", ["a text"], Deadline.after(_FIRST_ANSWER_MS))
    tuning = tunings.active(store.cluster)
    drifts, live = templates.compare(store.cluster, store.rendered_for(tuning))
    require_ready(StoreState(tuple(str(drift) for drift in drifts), live.shards, False))
    if judged.corpus is None:
        where = Where(
            store.cluster, settings.tenant, store.encoder, settings, live.shards, options.ignore_identical, reranker
        )
        yield Opened(store, judged, where, tuning, None, ())
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
    where = Where(
        scratch.cluster, settings.tenant, store.encoder, settings, settings.shards, options.ignore_identical, reranker
    )
    opened = Opened(store, judged, where, tuning, scratch, notes)
    yield opened
    if options.keep or opened.unfinished:
        console.print(f"the index {scratch.index} was kept", markup=False)
    else:
        scratch.drop()


@contextmanager
def query_bar(console: Console, description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over queries; silent where the console is no terminal."""
    with query_bars(console, [description], total) as (advance,):
        yield advance


@contextmanager
def query_bars(console: Console, descriptions: Sequence[str], total: int) -> Iterator[list[Callable[[int], None]]]:
    """The same, several one below the other."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("queries"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    with bar:
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


def _chosen(judged: JudgedSet, most: int | None) -> JudgedSet:
    return judged if most is None else sample_queries(judged, most)


def _not_stored(scratch: Scratch) -> Iterator[str]:
    """What could not be stored can't be found either: it is said, never dropped."""
    failed = scratch.report.failed
    if failed:
        shown = "; ".join(f"{item.place}: {item.detail}" for item in failed[:_SHOWN_REASONS])
        yield f"{len(failed)} documents of the corpus could not be stored: {shown}"


def _print(summary: Summary, console: Console) -> None:
    table = Table()
    names = ("NDCG@10", "MRR@10", "Recall@100", "MAP", "P@5", "judged@10")
    table.add_column("way")
    for name in (*names, "against the baseline"):
        table.add_column(name, justify="right", overflow="fold")
    for way in summary.ways:
        measured = way.result.measured.means
        compared = way.against_baseline.get("NDCG@10")
        against = ""
        if compared is not None:
            found = compared.comparison
            against = f"{100 * found.mean_difference:+.2f} ({100 * found.low:+.2f} to {100 * found.high:+.2f})"
        low, high = way.intervals["NDCG@10"]
        figures = [f"{100 * measured[name]:.2f}" for name in names]
        figures[0] += f" ({100 * low:.1f}-{100 * high:.1f})"
        table.add_row(way.result.name, *figures, against)
    if not console.is_terminal:
        console.width = WIDE
    console.print(table, crop=False, soft_wrap=False)
    for remark in (*summary.remarks, *summary.evaluation.notes):
        console.print(remark, markup=False)
