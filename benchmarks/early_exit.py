"""What early exit costs and saves on every judged set: `python benchmarks/early_exit.py`. Method: early_exit.md."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fusion
import harness

from app.config import load_settings
from app.deadline import Deadline
from app.evaluation.comparison import compare, holm
from app.evaluation.dataset import load_set
from app.evaluation.measures import measure
from app.querytext import read_query
from app.search.plan import leads
from app.search.readiness_gate import ReadinessGate, StoreState
from app.search.request import MAX_QUERY_CHARACTERS, SearchRequest
from app.search.rerankers import load_reranker
from app.search.retrieval import Retrieval
from app.search.service import SearchResult, SearchService
from app.search.stages import SearchCall
from app.search.trace import Trace
from app.serving.opening import open_store
from app.store.filters import Scope, clauses
from app.tuning import SHIPPED

MARGINS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
PART = 300
"""Queries of a set, at most."""


@dataclass(frozen=True, slots=True)
class Row:
    """One query: the documents of the whole way and of the lexical leg alone, and how long each took (ms)."""

    whole: tuple[str, ...]
    lexical: tuple[str, ...]
    whole_ms: float
    lexical_ms: float
    scores: tuple[float, ...]
    """Of the lexical leg, best first."""


def look(service: SearchService, retrieval: Retrieval, query: str, tenant: str) -> Row:
    """One query by both ways, as the service answers it."""
    text = query[:MAX_QUERY_CHARACTERS]
    whole = service.search(SearchRequest(query=text, timeout_ms=60_000), Scope(tenant))
    alone = service.search(SearchRequest(query=text, mode="lexical", timeout_ms=60_000), Scope(tenant))
    call = SearchCall(
        request=SearchRequest(query=text),
        query=read_query(text),
        tuning=SHIPPED,
        deadline=Deadline.after(60_000),
        filters=clauses(Scope(tenant)),
        depth=SHIPPED.candidates,
    )
    scores = tuple(item.score for item in retrieval.lexical(call, Trace()).candidates)
    return Row(documents(whole), documents(alone), whole.timings["total_ms"], alone.timings["total_ms"], scores)


def documents(found: SearchResult) -> tuple[str, ...]:
    return tuple(dict.fromkeys(hit.document_id for hit in found.hits))


def figures_of(rows: Mapping[str, Row], judgements: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """NDCG@10 x 100 and milliseconds of the whole way, and what each margin makes of them."""
    qrels = {query: judgements[query] for query in rows}
    before = measure(qrels, {query: row.whole for query, row in rows.items()})
    alone = measure(qrels, {query: row.lexical for query, row in rows.items()})
    found: dict[str, Any] = {
        "queries": len(rows),
        "whole": round(100 * before.means["NDCG@10"], 2),
        "lexical alone": round(100 * alone.means["NDCG@10"], 2),
        "whole ms": harness.percentiles([row.whole_ms for row in rows.values()]),
        "lexical ms": harness.percentiles([row.lexical_ms for row in rows.values()]),
    }
    for margin in MARGINS:
        left = {query for query, row in rows.items() if leads(row.scores, margin)}
        mixed = measure(qrels, {q: row.lexical if q in left else row.whole for q, row in rows.items()})
        told = compare(before, mixed, "NDCG@10", permutations=1999)
        spent = [row.lexical_ms if query in left else row.whole_ms for query, row in rows.items()]
        found[f"margin {margin:g}"] = {
            "exits": round(len(left) / len(rows), 3),
            "difference": round(100 * told.mean_difference, 2),
            "interval": [round(100 * told.low, 2), round(100 * told.high, 2)],
            "p": round(told.p_randomization, 4),
            "mean ms saved": round(sum(row.whole_ms for row in rows.values()) / len(rows) - sum(spent) / len(rows), 2),
        }
    return found


def judge(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """By margin over all sets: the mean difference, the worst set, and the smallest p after Holm's correction."""
    found = {}
    for margin in MARGINS:
        cells = {name: item[f"margin {margin:g}"] for name, item in figures.items()}
        worst = min(cells, key=lambda name: cells[name]["difference"])
        found[f"margin {margin:g}"] = {
            "exits": round(sum(cell["exits"] for cell in cells.values()) / len(cells), 3),
            "difference": round(sum(cell["difference"] for cell in cells.values()) / len(cells), 2),
            "worst set": [worst, cells[worst]["difference"]],
            "smallest p (Holm)": round(min(holm([cell["p"] for cell in cells.values()])), 4),
            "mean ms saved": round(sum(cell["mean ms saved"] for cell in cells.values()) / len(cells), 2),
        }
    return found


def sampled(queries: Sequence[str], most: int) -> list[str]:
    return sorted(queries) if len(queries) <= most else random.Random(6).sample(sorted(queries), most)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=list(fusion.SETS))
    parser.add_argument("--rows", type=Path, help="a folder to keep what was found for each query in")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    with harness.open_folder() as scratch, harness.braid_up() as up, ThreadPoolExecutor(4) as workers:
        settings = load_settings(opensearch_url=up["opensearch_url"], redis_url=up["redis_url"], query_log="off")
        store = open_store(settings)
        reranker = load_reranker(settings, store.encoder)
        ready = StoreState((), shards=1, native_rrf_across_shards=False, tuning=SHIPPED)
        for name in arguments.sets:
            judged = load_set(fusion.folder_of(name, scratch))
            index = harness.indexed(judged, store)
            gate = ReadinessGate(lambda: ready, workers)
            service = SearchService(settings, index.cluster, store.encoder, gate, workers, reranker)
            retrieval = Retrieval(index.cluster, workers)
            chosen = sampled(list(judged.queries), PART)
            for query in chosen[:20]:  # warm
                look(service, retrieval, judged.queries[query], settings.access.tenant)
            rows = {query: look(service, retrieval, judged.queries[query], settings.access.tenant) for query in chosen}
            figures[name] = figures_of(rows, judged.qrels)
            if arguments.rows is not None:
                kept = {query: asdict(row) for query, row in rows.items()}
                (arguments.rows / f"{name}.json").write_text(json.dumps({"rows": kept, "qrels": judged.qrels}))
            print(name, json.dumps(figures[name]), flush=True)
    harness.write_result("early_exit", "benchmarks/early_exit.md", {"sets": figures, "all": judge(figures)})


if __name__ == "__main__":
    main()
