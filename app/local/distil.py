"""`braid distil`: mine candidates through the store's own legs, then teach a small cross-encoder with them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from app.config import Settings
from app.embedded.models import PUBLISHED, ensure_model
from app.embedding.model_folder import model_folder
from app.errors import ConfigurationError, InvalidInput, NotFound
from app.evaluation.collect import Load
from app.evaluation.mining import Mined, made_queries, mine, query_key
from app.evaluation.where import Where
from app.feedback import judgements
from app.ingest.records import BadLine, read_records, record_id
from app.local.assets import Store, open_store
from app.local.evaluate import query_bar
from app.search.readiness import StoreState, require_ready
from app.store import templates, tunings
from app.store.filters import Scope
from app.store.sampling import MOST as MOST_SAMPLED
from app.store.sampling import sample_passages
from app.tuning import Tuning

Source = Literal["auto", "log", "passages"]

ENOUGH = 200
"""Queries in the log from which ``auto`` takes them; with fewer, passages give more."""
_CANDIDATES, _MINED = "candidates.jsonl", "mining"


@dataclass(frozen=True, slots=True)
class MineOptions:
    """Where queries come from, how many, and how hard the cluster may be worked."""

    out: Path
    queries: Path | None = None
    source: Source = "auto"
    most: int = 2000
    candidates: int = 30
    seed: int = 0
    load: Load = field(default_factory=Load)


def run(settings: Settings, options: MineOptions, training: dict[str, Any] | None, *, console: Console) -> int:
    """`braid distil`; the exit code. `training`: arguments of `reranker.cli.run_distil`; None: only mine.

    Raises:
        ConfigurationError: the extra `train` is not installed, or a setting of the training is wrong.
        InvalidInput, NotFound: there are no queries.
        StoreError: the cluster is away; the same command again goes on where it was.
    """
    with _as_ours():
        if training is not None:
            from reranker.cli import require_torch

            require_torch()  # known before the cluster is worked, not after it
            if training["fresh"]:
                shutil.rmtree(options.out / _MINED, ignore_errors=True)
        candidates = _mine(settings, options, console)
        if training is None:
            console.print(
                f"{candidates}: teach with it: braid-reranker distil {candidates} {options.out}", markup=False
            )
            return 0
        from reranker.cli import run_distil
        from reranker.rankings import read_rankings

        student = training.pop("student") or student_folder(settings)
        run_distil(
            read_rankings(candidates),
            None,
            options.out,
            student=student,
            depth=options.candidates,
            seed=options.seed,
            **training,
        )
    console.print(f"to use it: BRAID_RERANKER_MODEL={options.out}", markup=False)
    return 0


def student_folder(settings: Settings) -> Path:
    """The fp32 form of the embedding model, of which students are cut.

    Raises:
        ConfigurationError, ProvisioningError: it can't be had here.
    """
    if settings.embedding_path is None and "fp32" in PUBLISHED.get(settings.embedding_model, ()):
        return ensure_model(settings.embedding_model, "fp32", settings)
    return model_folder(settings)


def _mine(settings: Settings, options: MineOptions, console: Console) -> Path:
    from reranker.rankings import write_rankings

    folder = options.out / _MINED
    path = folder / _CANDIDATES
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{folder}: it can't be made ({error.strerror}); name another --out") from error
    store = open_store(settings)
    try:
        tuning = tunings.active(store.cluster)
        drifts, live = templates.compare(store.cluster, store.rendered_for(tuning))
        require_ready(StoreState(tuple(str(drift) for drift in drifts), live.shards, False))
        queries, labels = _queries(settings, store, options, folder, console)
        mined = _search(settings, store, tuning, live.shards, options, queries, labels, console)
    finally:
        store.cluster.close()
    for reason, count in (("failed", len(mined.failed)), ("found nothing", mined.without)):
        if count:
            console.print(f"{count} of {len(queries)} queries {reason}", style="yellow", markup=False)
    if not mined.rankings:
        raise NotFound("no query found a passage: is anything ingested for this tenant (BRAID_TENANT)?")
    write_rankings(path, mined.rankings)
    judged = sum(any(item.label is not None for item in ranking.candidates) for ranking in mined.rankings)
    console.print(f"{len(mined.rankings)} queries with candidates, {judged} of them with feedback", markup=False)
    return path


def _search(
    settings: Settings,
    store: Store,
    tuning: Tuning,
    shards: int,
    options: MineOptions,
    queries: dict[str, str],
    labels: dict[str, dict[str, int]],
    console: Console,
) -> Mined:
    where = Where(store.cluster, settings.tenant, store.encoder, settings, shards)
    with query_bar(console, "Searching", len(queries)) as progress:
        return mine(
            queries,
            where,
            tuning,
            candidates=options.candidates,
            load=options.load,
            kept_in=options.out / _MINED,
            labels=labels,
            progress=progress,
        )


def _queries(
    settings: Settings, store: Store, options: MineOptions, folder: Path, console: Console
) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """Queries by id, and what feedback says of passages."""
    if options.queries is not None:
        return dict(list(read_queries(options.queries).items())[: options.most]), {}
    logged: dict[str, str] = {}
    labels: dict[str, dict[str, int]] = {}
    if options.source != "passages":
        try:
            logged, labels = _logged(settings, store, folder, options.most)
        except NotFound:
            if options.source == "log":
                raise
        if options.source == "log" and not logged:
            raise NotFound("the query log holds no query with its text (BRAID_QUERY_LOG=full keeps it)")
        if options.source == "log" or len(logged) >= min(ENOUGH, options.most):
            console.print(f"{len(logged)} queries of the query log", markup=False)
            return logged, labels
    sampled = sample_passages(store.cluster, Scope(settings.tenant), min(options.most, MOST_SAMPLED), seed=options.seed)
    made = made_queries(sampled, options.most - len(logged), seed=options.seed)
    if not made and not logged:
        raise NotFound("no passage has a title, heading or sentence to make queries of: give some with --queries FILE")
    console.print(f"{len(logged)} queries of the query log, {len(made)} made from passages", markup=False)
    return {**made, **logged}, labels


def _logged(
    settings: Settings, store: Store, folder: Path, most: int
) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """As `braid feedback export --unit passage` writes them. Raises NotFound."""
    from reranker.rankings import DataError, read_qrels

    judgements.export(store.cluster, settings.tenant, folder / "log", unit="passage")
    try:
        labels = read_qrels(folder / "log" / judgements.QRELS)
    except DataError:  # nobody judged anything
        labels = {}
    path = folder / "log" / judgements.QUERIES
    queries = read_queries(path) if path.stat().st_size else {}
    # those with feedback first: they are worth most
    order = sorted(queries, key=lambda query: (query not in labels, query))
    return {query: queries[query] for query in order[:most]}, labels


def read_queries(path: Path) -> dict[str, str]:
    """Queries of a file, id -> text: JSON Lines with `text` or `query` (``.jsonl``, ``.jsonl.gz``), else one a line.

    Raises:
        InvalidInput: no such file, or no query in it.
    """
    if not path.is_file():
        raise InvalidInput(f"{path}: there is no such file of queries")
    found: dict[str, str] = {}
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        for row in read_records(path):
            if isinstance(row, BadLine):
                raise InvalidInput(f"{path.name} line {row.number}: {row.detail}")
            text = row[1].get("text", row[1].get("query"))
            if isinstance(text, str) and text.strip():
                found[record_id(row[1]) or query_key(text)] = text.strip()
    else:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.strip():
                found[query_key(line.strip())] = line.strip()
    if not found:
        raise InvalidInput(f'{path}: it holds no query; expected is {{"text": "..."}} or plain text, one a line')
    return found


@contextmanager
def _as_ours() -> Iterator[None]:
    """The reranker's errors as the command line of Braid shows them."""
    from reranker.errors import ConfigurationError as Wrong
    from reranker.errors import RerankerError

    try:
        yield
    except RerankerError as error:
        kind = ConfigurationError if isinstance(error, Wrong) else InvalidInput
        raise kind(error.detail) from error
