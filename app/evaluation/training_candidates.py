"""Training candidates for a reranker: queries of a file, the log or passages, searched with the store's legs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console

from app.config import Settings
from app.errors import InvalidInput, NotFound
from app.evaluation.collect import Load
from app.evaluation.mining import make_queries, mine, query_key
from app.evaluation.opened_set import query_bars
from app.evaluation.target import EvaluationTarget
from app.feedback import judged_set
from app.ingest.records import BadLine, read_records, record_id
from app.search.readiness_gate import require_ready
from app.serving.opening import Store, open_store
from app.store import tunings
from app.store.filters import Scope
from app.store.sampling import MOST as MOST_SAMPLED
from app.store.sampling import sample_passages

Source = Literal["auto", "log", "passages"]

ENOUGH = 200
"""Number of logged queries from which ``auto`` uses the log; with fewer, passages give more."""
_CANDIDATES, MINED = "candidates.jsonl", "mining"


@dataclass(frozen=True, slots=True)
class MineOptions:
    """Source and number of queries, and limits on the cluster's load."""

    out: Path
    queries: Path | None = None
    source: Source = "auto"
    most: int = 2000
    candidates: int = 30
    seed: int = 0
    load: Load = field(default_factory=Load)


def mine_candidates(settings: Settings, options: MineOptions, console: Console) -> Path:
    """Search for candidates of queries and write them; return the file.

    Raises:
        InvalidInput, NotFound: there are no queries, or `options.out` can't be created.
        StoreError: the cluster is unavailable; repeat the call to resume.
    """
    from reranker.rankings import write_rankings

    folder = options.out / MINED
    path = folder / _CANDIDATES
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{folder}: it can't be created ({error.strerror}): pass another --out") from error
    store = open_store(settings)
    try:
        tuning = tunings.active(store.cluster)
        state = store.state(tuning)
        require_ready(state)
        queries, labels = _queries(settings, store, options, folder, console)
        where = EvaluationTarget(store.cluster, settings.access.tenant, store.encoder, settings, state.shards)
        with query_bars(console, ["Searching"], len(queries)) as (progress,):
            mined = mine(
                queries,
                where,
                tuning,
                candidates=options.candidates,
                load=options.load,
                kept_in=folder,
                labels=labels,
                progress=progress,
            )
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


def _queries(
    settings: Settings, store: Store, options: MineOptions, folder: Path, console: Console
) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """Return queries by id, and the feedback on passages."""
    if options.queries is not None:
        return dict(list(read_queries(options.queries).items())[: options.most]), {}
    logged: dict[str, str] = {}
    labels: dict[str, dict[str, int]] = {}
    if options.source != "passages":
        try:
            logged, labels = _export_logged(settings, store, folder, options.most)
        except NotFound:
            if options.source == "log":
                raise
        if options.source == "log" and not logged:
            raise NotFound("the query log holds no query with its text (BRAID_QUERY_LOG=full keeps it)")
        if options.source == "log" or len(logged) >= min(ENOUGH, options.most):
            console.print(f"{len(logged)} queries of the query log", markup=False)
            return logged, labels
    sampled = sample_passages(
        store.cluster, Scope(settings.access.tenant), min(options.most, MOST_SAMPLED), seed=options.seed
    )
    made = make_queries(sampled, options.most - len(logged), seed=options.seed)
    if not made and not logged:
        raise NotFound("no passage has a title, heading or sentence for a query: pass queries with --queries FILE")
    console.print(f"{len(logged)} queries of the query log, {len(made)} made from passages", markup=False)
    return {**made, **logged}, labels


def _export_logged(
    settings: Settings, store: Store, folder: Path, most: int
) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """Export logged queries like `braid feedback export --unit passage`. Raises NotFound."""
    from reranker.rankings import DataError, read_qrels

    judged_set.export(store.cluster, settings.access.tenant, folder / "log", unit="passage")
    try:
        labels = read_qrels(folder / "log" / judged_set.QRELS)
    except DataError:  # there are no judgements
        labels = {}
    path = folder / "log" / judged_set.QUERIES
    queries = read_queries(path) if path.stat().st_size else {}
    # queries with feedback first: they are the most useful
    order = sorted(queries, key=lambda query: (query not in labels, query))
    return {query: queries[query] for query in order[:most]}, labels


def read_queries(path: Path) -> dict[str, str]:
    """Read the queries of a file, id -> text: JSON Lines with `text` or `query` (``.jsonl``, ``.jsonl.gz``), else a
    query per line.

    Raises:
        InvalidInput: the file is missing or contains no query.
    """
    if not path.is_file():
        raise InvalidInput(f"{path}: the file of queries does not exist")
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
        raise InvalidInput(f'{path}: it contains no query; expected {{"text": "..."}} or plain text, one per line')
    return found
