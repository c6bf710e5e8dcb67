"""Cost and quality of the lexical leg, on all matches and skipping: `python benchmarks/lexical_leg.py`.

Method: lexical_leg.md.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import harness
import ir_measures
import orjson
import psutil
from ir_measures import nDCG

from app.config import load_settings
from app.querytext import QueryText, read_query
from app.store import queries as bodies
from app.store.client import Cluster
from app.store.filters import Scope, clauses
from app.store.rendering import compose, render
from app.tuning import SHIPPED

SETS = ("cranfield", "cisi", "squad2dev", "covidqa", "scifact")
DEPTH, BLOCK, WARM = 100, 20, 40
FILTERS = clauses(Scope("default"))
Body = dict[str, Any]


def on_all_matches(query: QueryText) -> Body:
    """The leg as it was: all signals scored on all matches, which are counted and sorted by score and id."""
    leg = bodies.lexical_leg(query, SHIPPED.boosts, FILTERS)
    leg["bool"]["should"] = [*bodies.refinement(query, SHIPPED.boosts), *leg["bool"].get("should", ())]
    body = bodies.leg_body(leg, size=DEPTH, timeout_ms=60_000, exact_total=True)
    return {**body, "sort": [{"_score": "desc"}, {"passage_id": "asc"}]}


def skipping(refined: int | None) -> Callable[[QueryText], Body]:
    """The leg as it is, with another number of refined passages; None: without refinement."""

    def body(query: QueryText) -> Body:
        found = bodies.lexical_searches(query, SHIPPED.boosts, FILTERS, depth=DEPTH, timeout_ms=60_000, checked=())[0]
        rescore = found.pop("rescore", None)
        if rescore and refined:
            found["rescore"] = {**rescore, "window_size": max(refined, found["size"])}
        return found

    return body


WAYS = {
    "on all matches": on_all_matches,
    "skipping, not refined": skipping(None),
    **{f"skipping, best {refined} refined": skipping(refined) for refined in (120, 200, 500)},
}


def fill(cluster: Cluster, name: str, rows: list[dict[str, Any]]) -> None:
    """Index the texts of rows without vectors; a title of several parts is title and heading."""
    if cluster.request("GET", f"/_cat/indices/{name}*", params={"format": "json", "h": "index"}):
        return
    body = compose(render(load_settings(), "faiss-exact", 384))
    del body["settings"]["index"]["default_pipeline"]
    cluster.request("PUT", f"/{name}", body=body)
    for start in range(0, len(rows), 500):
        lines: list[Body] = []
        for row in rows[start : start + 500]:
            title, _, heading = row.get("title", "").partition(" > ")
            fields = {"title": title, "section_heading": heading, "text": row["text"], "tenant": "default"}
            document, _, _ = row["_id"].partition("#")
            lines += [{"index": {"_id": row["_id"]}}, {"passage_id": row["_id"], "document_id": document, **fields}]
        data = b"".join(orjson.dumps(line) + b"\n" for line in lines)
        assert not cluster.request("POST", f"/{name}/_bulk", body=data)["errors"]
    cluster.request("POST", f"/{name}/_refresh")


def ranking(cluster: Cluster, body: Body) -> list[str]:
    hits = cluster.request("POST", f"/{cluster.read_alias}/_search", body=body)["hits"]["hits"]
    scored = [(item["sort"][0] if "sort" in item else item["_score"], item["fields"]["passage_id"][0]) for item in hits]
    return [name for _, name in sorted(scored, key=lambda item: (-item[0], item[1]))[:DEPTH]]


def processor_ms(cluster: Cluster, texts: list[str]) -> dict[str, float]:
    """Milliseconds of the node's processes a query; the ways take turns after each block of queries."""
    nodes = cluster.request("GET", "/_nodes/process")["nodes"].values()
    processes = [psutil.Process(node["process"]["id"]) for node in nodes]
    spent = dict.fromkeys(WAYS, 0.0)
    for start in range(-WARM, len(texts), BLOCK):
        part = list(map(read_query, texts[max(0, start) : max(0, start) + BLOCK]))
        for way, body in WAYS.items():
            before = sum(sum(process.cpu_times()[:2]) for process in processes)
            for query in part:
                cluster.request("POST", f"/{cluster.read_alias}/_search", body=body(query))
            if start >= 0:
                spent[way] += sum(sum(process.cpu_times()[:2]) for process in processes) - before
    return {way: round(1000 * seconds / len(texts), 2) for way, seconds in spent.items()}


def quality(cluster: Cluster, name: str, most: int) -> dict[str, dict[str, float]]:
    """NDCG@10 x 100 of each way, and the share of its candidates that the first way has, too."""
    texts, judged = harness.queries(name)
    chosen = random.Random(3).sample(sorted(texts), min(most, len(texts)))
    qrels = [ir_measures.Qrel(query, document, grade) for query in chosen for document, grade in judged[query].items()]
    found: dict[str, dict[str, float]] = {}
    first: dict[str, list[str]] = {}
    for way, body in WAYS.items():
        ranked = {query: ranking(cluster, body(read_query(texts[query]))) for query in chosen}
        first = first or ranked
        run = [ir_measures.ScoredDoc(query, key, -n) for query, keys in ranked.items() for n, key in enumerate(keys)]
        same = [len({*ranked[query]} & {*first[query]}) / max(1, len(first[query])) for query in chosen]
        score = ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10]
        found[way] = {"nDCG@10": round(100 * score, 2), "same candidates": round(sum(same) / len(same), 4)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="an OpenSearch on this machine; indexes that are there are used again")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 128_350])
    parser.add_argument("--queries", type=int, default=200)
    arguments = parser.parse_args()
    opened = nullcontext({"opensearch_url": arguments.url}) if arguments.url else harness.braid_up()
    with opened as up:
        cluster = Cluster(load_settings(opensearch_url=up["opensearch_url"], opensearch_timeout_s=120).opensearch)
        texts = random.Random(7).sample(list(harness.queries("awsdocs")[0].values()), arguments.queries)
        costs = {}
        for size in arguments.sizes:
            name = f"lexical-leg-{size}"
            fill(cluster, name, harness.corpus("awsdocs")[:size])
            costs[f"{size} passages"] = processor_ms(cluster.within(name), texts)
        measured = {}
        for judged in SETS:
            fill(cluster, f"lexical-leg-{judged}", harness.corpus(judged))
            measured[judged] = quality(cluster.within(f"lexical-leg-{judged}"), judged, arguments.queries)
        if 128_350 in arguments.sizes:
            measured["awsdocs"] = quality(cluster.within("lexical-leg-128350"), "awsdocs", arguments.queries)
    harness.write_result("lexical_leg", "benchmarks/lexical_leg.md", {"processor ms a query": costs, "sets": measured})


if __name__ == "__main__":
    main()
