"""Text search in each language's own analysis against the main one: `python benchmarks/languages.py`.

Method: languages.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import harness
import ir_measures
import orjson
from ir_measures import nDCG

from app.config import Settings, load_settings
from app.languages import detect
from app.querytext import read_query
from app.store import queries as bodies
from app.store.client import Cluster, search_together
from app.store.filters import Scope, clauses
from app.store.languages import QueryFields
from app.store.rendering import INGEST_PIPELINE, compose, render
from app.tuning import SHIPPED

LANGUAGES = ("en", "de", "es", "zh", "ru", "ar")
MANY = "en,de,es,fr,it,nl,pt,ro,tr,vi,zh,ja,ko,ru,uk,bg,ar,fa,hi,th,el"
"""A setting of many languages, in which detecting that of a query is hardest."""
ENGLISH = ("cranfield", "covidqa")
DEPTH, AT_ONCE = 100, 40
FILTERS = clauses(Scope("default"))
Body = dict[str, Any]
Fields = Callable[[str], tuple[str, ...]]


def fill(cluster: Cluster, name: str, settings: Settings, rows: Sequence[Body]) -> int:
    """Index rows without vectors, each with its detected language; return the bytes of the index."""
    cluster.request("DELETE", f"/{name}", params={"ignore_unavailable": "true"})
    rendered = render(settings, "faiss-exact", 384)
    body = compose(rendered)
    cluster.request("PUT", f"/_ingest/pipeline/{name}", body=rendered.body("ingest pipeline", INGEST_PIPELINE))
    body["settings"]["index"]["default_pipeline"] = name
    cluster.request("PUT", f"/{name}", body=body)
    for start in range(0, len(rows), 500):
        lines: list[Body] = []
        for row in rows[start : start + 500]:
            guess = detect(row["text"])
            fields = {"title": row.get("title", ""), "text": row["text"], "tenant": "default"}
            known = {"detected_language": guess.language, "language_confidence": guess.confidence}
            lines += [{"index": {"_id": row["_id"]}}, {"document_id": row["_id"], **fields, **known}]
        data = b"".join(orjson.dumps(line) + b"\n" for line in lines)
        assert not cluster.request("POST", f"/{name}/_bulk", body=data)["errors"]
    cluster.request("POST", f"/{name}/_refresh")
    cluster.request("POST", f"/{name}/_forcemerge", params={"max_num_segments": "1"})
    cluster.request("POST", f"/{name}/_flush", params={"force": "true"})
    cluster.request("POST", f"/{name}/_refresh")
    (shard,) = cluster.request("GET", f"/{name}/_segments")["indices"][name]["shards"]["0"]
    return sum(int(segment["size_in_bytes"]) for segment in shard["segments"].values() if segment["search"])


def rankings(cluster: Cluster, index: str, texts: Sequence[str], fields: Fields) -> list[list[str]]:
    """The passages found for each text, best first."""
    found = []
    for start in range(0, len(texts), AT_ONCE):
        asked = [read_query(text, fields(text)) for text in texts[start : start + AT_ONCE]]
        searches = [
            bodies.lexical_searches(query, SHIPPED.boosts, FILTERS, depth=DEPTH, timeout_ms=60_000, checked=())[0]
            for query in asked
        ]
        for answer in search_together(cluster.within(index), searches):
            scored = [(item["_score"], item["fields"]["passage_id"][0]) for item in answer["hits"]["hits"]]
            found.append([name for _, name in sorted(scored, key=lambda item: (-item[0], item[1]))[:DEPTH]])
    return found


def reciprocal_rank(cluster: Cluster, index: str, language: str, fields: Fields, prefix: str = "") -> float:
    """Mean reciprocal rank of the right paragraph over all questions of a set."""
    texts, judged = harness.queries(f"xquad-{language}")
    total = 0.0
    for key, found in zip(texts, rankings(cluster, index, list(texts.values()), fields), strict=True):
        right = {f"{prefix}{document}" for document in judged[key]}
        total += next((1 / rank for rank, name in enumerate(found, 1) if name in right), 0.0)
    return round(total / len(texts), 4)


def ndcg(cluster: Cluster, index: str, name: str, fields: Fields) -> float:
    texts, judged = harness.queries(name)
    qrels = [ir_measures.Qrel(key, document, grade) for key in texts for document, grade in judged[key].items()]
    run = [
        ir_measures.ScoredDoc(key, document, -rank)
        for key, found in zip(texts, rankings(cluster, index, list(texts.values()), fields), strict=True)
        for rank, document in enumerate(found)
    ]
    return round(100 * float(ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10]), 2)


def detection() -> Body:
    """Shares of passages and queries whose language was detected, and milliseconds each."""
    found: Body = {}
    settings = {"six": ",".join(LANGUAGES), "21": MANY}
    choosers = {name: QueryFields(load_settings(languages=value).index) for name, value in settings.items()}
    for language in LANGUAGES:
        rows = harness.corpus(f"xquad-{language}")
        began = time.process_time()
        guesses = [detect(row["text"]) for row in rows]
        spent = 1000 * (time.process_time() - began) / len(rows)
        row: Body = {
            "passages": round(sum(guess.language == language for guess in guesses) / len(rows), 4),
            "passages, other language": round(sum(guess.language not in (language, None) for guess in guesses), 4),
            "ms a passage": round(spent, 2),
        }
        for name, chooser in choosers.items():
            texts = list(harness.queries(f"xquad-{language}")[0].values())
            began = time.process_time()
            asked = [chooser.of(text) for text in texts]
            spent = 1000 * (time.process_time() - began) / len(texts)
            own = chooser.all[language]
            row[f"queries of {name} languages"] = {
                "own field alone": round(sum(fields == (own,) for fields in asked) / len(texts), 4),
                "own field among others": round(
                    sum(own in fields and len(fields) > 1 for fields in asked) / len(texts), 4
                ),
                "without it": round(sum(own not in fields for fields in asked) / len(texts), 4),
                "ms a query": round(spent, 2),
            }
        found[language] = row
    return found


def measure(cluster: Cluster) -> Body:
    def nothing(text: str) -> tuple[str, ...]:
        return ()

    plain = load_settings()
    alone: Body = {}
    mixed: list[Body] = []
    for language in LANGUAGES:
        rows = harness.corpus(f"xquad-{language}")
        mixed += [{**row, "_id": f"{language}-{row['_id']}"} for row in rows]
        own = load_settings(languages=",".join(LANGUAGES))
        bytes_of = {
            "English": fill(cluster, "languages-english", plain, rows),
            "own": fill(cluster, "languages-own", own, rows),
        }
        alone[language] = {
            "English analysis": reciprocal_rank(cluster, "languages-english", language, nothing),
            "own analysis": reciprocal_rank(cluster, "languages-own", language, QueryFields(own.index).of),
            "bytes": bytes_of,
        }
        many = load_settings(languages=MANY)
        fill(cluster, "languages-many", many, rows)
        alone[language]["own analysis, 21 languages set"] = reciprocal_rank(
            cluster, "languages-many", language, QueryFields(many.index).of
        )
        print(language, alone[language], flush=True)
    together: Body = {}
    six = load_settings(languages=",".join(LANGUAGES))
    together["bytes"] = {
        "English": fill(cluster, "languages-english", plain, mixed),
        "own": fill(cluster, "languages-own", six, mixed),
    }
    for language in LANGUAGES:
        prefix = f"{language}-"
        together[language] = {
            "English analysis": reciprocal_rank(cluster, "languages-english", language, nothing, prefix),
            "own analysis": reciprocal_rank(cluster, "languages-own", language, QueryFields(six.index).of, prefix),
        }
        print("together", language, together[language], flush=True)
    english: Body = {}
    for name in ENGLISH:
        rows = [row for row in harness.corpus(name) if row["text"].strip()]
        fill(cluster, "languages-english", plain, rows)
        fill(cluster, "languages-own", six, rows)
        english[name] = {
            "nDCG@10, English only": ndcg(cluster, "languages-english", name, nothing),
            "nDCG@10, six languages set": ndcg(cluster, "languages-own", name, QueryFields(six.index).of),
        }
        print(name, english[name], flush=True)
    return {"mrr, one language an index": alone, "mrr, all six in one index": together, "english sets": english}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="an OpenSearch on this machine")
    parser.add_argument("--opensearch", default="2.19", help="release to start")
    arguments = parser.parse_args()
    opened = (
        nullcontext({"opensearch_url": arguments.url})
        if arguments.url
        else harness.braid_up("--opensearch", arguments.opensearch)
    )
    with opened as up:
        cluster = Cluster(load_settings(opensearch_url=up["opensearch_url"], opensearch_timeout_s=120).opensearch)
        version = cluster.request("GET", "/")["version"]["number"]
        figures = measure(cluster)
    harness.write_result(
        "languages", "benchmarks/languages.md", {"opensearch": version, "detection": detection(), **figures}
    )


if __name__ == "__main__":
    main()
