"""Near-identical queries: hits and wrong hits of the gate against plain cosine caching, and what a look-up costs.

Method and command: benchmarks/cache.md.
"""

from __future__ import annotations

import gzip
import itertools
import json
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from app.cache.codec import EntryCodec
from app.cache.connection import RedisConnection
from app.cache.normal_form import differs, normal_form
from app.cache.response_cache import ResponseCache
from app.cache.vectors import VectorCache
from app.calibration import calibration_for
from app.config import load_settings
from app.deadline import Deadline
from app.dev.valkey import start_valkey
from app.embedding.encoder import Encoder, load_encoder
from app.features import ALL_ON
from app.search.cached_models import QueryVectors
from app.search.request import SearchRequest
from app.serving.near import NearAnswers
from app.serving.reads import ReadCall
from app.store.filters import Scope
from benchmarks import cache_mutations, harness

PAIRS = harness.ROOT / "benchmarks" / "near_cache"
PLAIN = 0.95
"""The cosine that caches by similarity alone are often run at."""
THRESHOLDS = (0.75, 0.8, 0.85, 0.9, 0.95)
KEPT = 500
"""Queries that are there when look-ups are timed; their number does not matter."""
LOOK_UPS = 2000


@dataclass(frozen=True)
class Pair:
    a: str
    b: str
    same: bool
    category: str
    cosine: float


def read(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (PAIRS / file).read_text(encoding="utf-8").splitlines()]


def pairs_of(encoder: Encoder, rows: Sequence[tuple[str, str, bool, str]]) -> list[Pair]:
    texts = list(dict.fromkeys(text for a, b, *_ in rows for text in (a, b)))
    vectors = dict(zip(texts, encoder.encode_queries(texts), strict=True))
    return [Pair(a, b, same, category, float(vectors[a] @ vectors[b])) for a, b, same, category in rows]


def own_sets(encoder: Encoder) -> dict[str, list[Pair]]:
    return {name: pairs_of(encoder, rows) for name, rows in own_rows().items()}


def own_rows() -> dict[str, list[tuple[str, str, bool, str]]]:
    """The pairs by set: both queries, whether they have the same answer, category."""
    found = {}
    for part in ("dev", "held-out"):
        same = [(r["a"], r["b"], True, "paraphrase") for r in read("paraphrases.jsonl") if r["part"] == part]
        other = [(r["a"], r["b"], False, r["category"]) for r in read("adversarial.jsonl") if r["part"] == part]
        found[f"own, {part}"] = [*same, *other]
    rows = read("fow_cache_pairs.jsonl")
    for name, odd in (("fow-cache, half that was looked at", 1), ("fow-cache, other half", 0)):
        half = [r for r in rows if int("".join(filter(str.isdigit, r["id"]))) % 2 == odd]
        found[name] = [(r["a"], r["b"], r["same_answer"], r["category"]) for r in half]
    return found


def exact(pair: Pair) -> bool:
    def plain(text: str) -> str:
        return " ".join(text.casefold().split())

    return plain(pair.a) == plain(pair.b)


def methods(threshold: float) -> dict[str, Callable[[Pair], bool]]:
    return {
        "exact (case and white space)": exact,
        f"cosine {PLAIN}": lambda pair: pair.cosine >= PLAIN,
        f"cosine {threshold}": lambda pair: pair.cosine >= threshold,
        "gate alone": lambda pair: differs(pair.a, pair.b) is None,
        f"gate and cosine {threshold}": lambda pair: pair.cosine >= threshold and differs(pair.a, pair.b) is None,
    }


def counted(pairs: Sequence[Pair], serves: Callable[[Pair], bool], plain_hits: int) -> dict[str, Any]:
    """Hits, wrong hits, and the shares that the issue asks for."""
    hits = sum(serves(pair) for pair in pairs if pair.same)
    wrong = [pair for pair in pairs if not pair.same and serves(pair)]
    others = sum(not pair.same for pair in pairs)
    return {
        "hits": hits,
        "of": len(pairs) - others,
        "hits / hits of plain cosine": round(hits / plain_hits, 3) if plain_hits else None,
        "wrong": len(wrong),
        "of others": others,
        "wrong share %": round(100 * len(wrong) / others, 2) if others else None,
        "wrong / all hits %": round(100 * len(wrong) / (hits + len(wrong)), 2) if hits + len(wrong) else 0.0,
        "wrong by category": dict(Counter(pair.category for pair in wrong).most_common()),
    }


def table(sets: dict[str, list[Pair]], threshold: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, pairs in sets.items():
        plain_hits = sum(pair.same and pair.cosine >= PLAIN for pair in pairs)
        found[name] = {method: counted(pairs, serves, plain_hits) for method, serves in methods(threshold).items()}
        refused = Counter(differs(pair.a, pair.b) for pair in pairs if pair.same)
        found[name]["why the gate refused true paraphrases"] = {
            reason: count for reason, count in refused.most_common() if reason
        }
    return found


def curve(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Gate and cosine at each threshold, on the dev part: what the default was chosen from."""
    plain_hits = sum(pair.same and pair.cosine >= PLAIN for pair in pairs)
    found = {}
    for threshold in THRESHOLDS:
        serves = methods(threshold)[f"gate and cosine {threshold}"]
        found[str(threshold)] = {k: v for k, v in counted(pairs, serves, plain_hits).items() if k in ("hits", "wrong")}
    return found


def one_word_apart(encoder: Encoder, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Could the model's contextual vectors tell a synonym from an opposite? Pairs that differ in one word only."""
    scores: dict[bool, list[float]] = {True: [], False: []}
    for pair in pairs:
        one, other = normal_form(pair.a) or (), normal_form(pair.b) or ()
        if len(one) == len(other) > 1 and sum(x != y for x, y in zip(one, other, strict=True)) == 1:
            scores[pair.same].append(least_match(encoder, pair.a, pair.b))
    same, other_scores = np.array(scores[True]), np.array(scores[False])
    above = (same[:, None] > other_scores[None, :]).mean() if same.size and other_scores.size else float("nan")
    return {
        "pairs with the same answer": len(same),
        "pairs with another": len(other_scores),
        "chance that the true one scores higher": round(float(above), 3),
        "highest score of one with another answer": round(float(other_scores.max()), 3),
        "true ones above it": int((same > other_scores.max()).sum()),
    }


def least_match(encoder: Encoder, a: str, b: str) -> float:
    """The worst, over the tokens of both queries, of a token's best cosine in the other query."""
    one, other = (encoder.encode_query_with_tokens(text)[1][1:-1] for text in (a, b))
    cosines = (one / np.linalg.norm(one, axis=1, keepdims=True)) @ (
        other / np.linalg.norm(other, axis=1, keepdims=True)
    ).T
    return float(min(cosines.max(axis=0).min(), cosines.max(axis=1).min()))


def squad(encoder: Encoder, threshold: float, show: bool) -> dict[str, Any]:
    """All questions of SQuAD 2.0's dev part in one bucket: 15 million pairs, many made to look alike."""
    texts: list[str] = []
    for name in ("queries", "unanswerable"):
        with gzip.open(harness.SETS / "squad2dev" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    texts = list(dict.fromkeys(texts))
    vectors = encoder.encode_queries(texts)
    above: Counter[float] = Counter()
    passed = []
    for row in range(len(texts)):
        cosines = vectors[row + 1 :] @ vectors[row]
        for at in THRESHOLDS:
            above[at] += int((cosines >= at).sum())
        for offset in np.flatnonzero(cosines >= min(THRESHOLDS)):
            other = row + 1 + int(offset)
            if differs(texts[row], texts[other]) is None:
                passed.append((float(cosines[offset]), texts[row], texts[other]))
    if show:
        for cosine, a, b in passed:
            print(f"{cosine:.3f} | {a} | {b}")
    return {
        "questions": len(texts),
        "pairs at or above a cosine": {str(at): above[at] for at in THRESHOLDS},
        "pairs that the gate lets pass": len(passed),
        f"of them at or above {threshold}": sum(cosine >= threshold for cosine, *_ in passed),
    }


@contextmanager
def near_answers(encoder: Encoder, url: str, threshold: float) -> Iterator[NearAnswers]:
    """The real thing on a real Valkey; vectors that were made before come from the process."""
    settings = load_settings(redis_url=url, keys_secret=secrets.token_hex(32))
    connection, codec = RedisConnection(settings.redis), EntryCodec(settings.access)
    vectors = QueryVectors(encoder, None, VectorCache(connection, codec, entries=10_000, ttl_s=600))
    try:
        yield NearAnswers(ResponseCache(connection, codec, 600), vectors, None, threshold)
    finally:
        connection.close()


def near_query(query: str) -> ReadCall[SearchRequest]:
    request = SearchRequest.model_validate({"query": query})
    return ReadCall(request, Scope("bench"), ALL_ON, Deadline.after(10_000))


def cost(encoder: Encoder, url: str, threshold: float) -> dict[str, Any]:
    """Milliseconds of `NearAnswers.find` and `add` on a real Valkey; of a hit with embedding the query.

    `processor` is the calling thread's own time, which does not grow when the machine has other work (ONNX Runtime's
    threads are not in it).
    """
    rows = read("adversarial.jsonl")
    texts = list(dict.fromkeys(text for row in rows for text in (row["a"], row["b"])))
    times: dict[str, list[float]] = {"hit": [], "miss": [], "miss, processor": [], "add": []}
    bucket = secrets.token_hex(8)
    with near_answers(encoder, url, threshold) as near:
        for number in range(KEPT):
            started = time.perf_counter()
            near.add(bucket, near_query(texts[number]), f"answer-{number}")
            times["add"].append(1000 * (time.perf_counter() - started))
        for number in range(LOOK_UPS):
            hit = number % 2 == 0
            place = number // 2 % KEPT if hit else (KEPT + number) % len(texts)
            # a text that was not embedded before, as a caller's is
            text = f"  {texts[place]}{' ' * (number // len(texts))}{'?' * (number % 5)}" if hit else texts[place]
            question = near_query(text)
            started, worked = time.perf_counter(), time.thread_time()
            found = near.find(bucket, question)
            times["hit" if found else "miss"].append(1000 * (time.perf_counter() - started))
            if not found:
                times["miss, processor"].append(1000 * (time.thread_time() - worked))
    return {"kept": KEPT, **{outcome: harness.percentiles(values) for outcome, values in times.items() if values}}


def bucket_run(encoder: Encoder, url: str, threshold: float) -> dict[str, Any]:
    """Held-out part through the real class, many queries in a bucket: what is served, and whether it is right."""
    groups: dict[str, list[str]] = {}
    for row in read("paraphrases.jsonl"):
        if row["part"] == "held-out":
            texts = groups.setdefault(row["group"], [])
            texts += [text for text in (row["a"], row["b"]) if text not in texts]
    others = [row for row in read("adversarial.jsonl") if row["part"] == "held-out"]
    figures: Counter[str] = Counter()
    with near_answers(encoder, url, threshold) as near:
        paraphrases, adversarial = secrets.token_hex(8), secrets.token_hex(8)
        for group, texts in groups.items():
            near.add(paraphrases, near_query(texts[0]), group)
        for group, texts in groups.items():
            for text in texts[1:]:
                found = near.find(paraphrases, near_query(text))
                figures["paraphrase: " + ("miss" if not found else "right" if found == group else "wrong")] += 1
        cached = dict.fromkeys(row["a"] for row in others)
        for text in cached:
            near.add(adversarial, near_query(text), text)
        for text in dict.fromkeys(row["b"] for row in others if row["b"] not in cached):
            found = near.find(adversarial, near_query(text))
            figures["adversarial: " + ("served, wrong" if found else "not served")] += 1
    return dict(sorted(figures.items()))


def main() -> None:
    settings = load_settings()
    encoder = load_encoder(settings)
    calibration = calibration_for(settings.embedding, encoder.name)
    assert calibration is not None
    threshold = calibration.near_min_cosine
    sets = own_sets(encoder)
    figures: dict[str, Any] = {
        "model": encoder.name,
        "threshold": threshold,
        "pairs": table(sets, threshold),
        "dev, gate and cosine at a threshold": curve(sets["own, dev"]),
        "one word apart, by the model's token vectors (dev)": one_word_apart(encoder, sets["own, dev"]),
    }
    if (harness.SETS / "squad2dev").is_dir():
        figures["real queries with one change"] = cache_mutations.run("--show" in sys.argv)
        figures["squad2dev in one bucket"] = squad(encoder, threshold, "--show" in sys.argv)
    with tempfile.TemporaryDirectory() as folder, start_valkey(data_dir=Path(folder)) as server:
        figures["held-out in one bucket"] = bucket_run(encoder, server.url, threshold)
        figures["milliseconds of a look-up"] = cost(encoder, server.url, threshold)
    harness.write_result("cache", "benchmarks/cache.md", figures)
    if "--wrong" in sys.argv:
        for name, pairs in sets.items():
            for pair in itertools.filterfalse(lambda p: p.same or differs(p.a, p.b), pairs):
                print(f"{name} | {pair.category} | {pair.a} | {pair.b}")


if __name__ == "__main__":
    main()
