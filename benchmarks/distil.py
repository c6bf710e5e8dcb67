"""A student distilled on some judged sets and measured on sets that it never saw. See benchmarks/distil.md.

    python benchmarks/distil.py train --work FOLDER      # needs `make train`; keeps candidates and scores there
    python benchmarks/distil.py measure --work FOLDER --model MODEL

`FOLDER/NAME.jsonl` holds a set's candidates (as `braid distil --mine-only` leaves them), `FOLDER/NAME.late.json` the
late-interaction scores of the first 30 of each query; what is missing there is made: BM25 by bm25s, dense by MiniLM,
fused with a dense share of 0.4.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
import numpy as np

sys.path.insert(0, str(harness.ROOT))

from app.config import load_settings
from app.embedding.encoder import load_encoder
from app.passage import Candidate as Leg
from app.provision.models import ensure_model
from app.search.fusion import fuse_linear
from reranker.cross_encoder import CrossEncoder
from reranker.evaluate import fit_settings
from reranker.fitting import JudgedQuery, curve, judged_query
from reranker.measures import ideal_dcg, min_max, mrr, ndcg
from reranker.model_folder import load_settings as model_settings
from reranker.rankings import Candidate, Ranking, add_labels, read_rankings, write_rankings
from reranker.train.late_interaction import LateInteraction

TAUGHT = {"squad2dev": 1200, "scifact": 650, "awsdocs": 450}
"""Queries of each set that are learned from; the next `HELD` of each are for validation, the others for measuring."""
HELD = 25
UNSEEN = ("cranfield", "cisi", "covidqa")
MEASURED = 300
"""Queries of a set at most."""
DEPTH, TRAINED_DEPTH = 20, 20
SENTENCES = 1600
"""Queries that are sentences of passages: with them a student finds out sooner that words should match."""
LATE_SHARE = 0.4


def candidates(name: str, work: Path) -> list[Ranking]:
    """The set's queries with 50 candidates each, labelled."""
    path = work / f"{name}.jsonl"
    texts, qrels = harness.queries(name)
    if not path.is_file():
        write_rankings(path, make_candidates(name, texts))
    return add_labels(read_rankings(path), qrels)


def make_candidates(name: str, texts: dict[str, str]) -> Iterator[Ranking]:
    """BM25 and dense, 100 each, fused."""
    import bm25s

    rows = harness.corpus(name)
    ids = [row["_id"] for row in rows]
    passages = [" ".join(part for part in (row["title"], row["text"]) if part) for row in rows]
    index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    index.index(bm25s.tokenize(passages, stopwords="en", show_progress=False), show_progress=False)
    encoder = load_encoder(load_settings())
    vectors = encoder.encode_passages(passages)
    for query_id, text in texts.items():
        tokens = bm25s.tokenize([text], stopwords="en", show_progress=False)
        places, scores = index.retrieve(tokens, k=min(100, len(ids)), show_progress=False)
        lexical = [Leg(ids[p], ids[p], float(s)) for p, s in zip(places[0], scores[0], strict=True) if s > 0]
        similar = vectors @ encoder.encode_query(text)
        dense = [Leg(ids[p], ids[p], 1 + float(similar[p])) for p in np.argsort(-similar)[:100]]
        fused = fuse_linear(lexical, dense, 0.4)[:50]
        where = {key: place for place, key in enumerate(ids)}
        yield Ranking(query_id, text, tuple(Candidate(item.id, passages[where[item.id]], item.score) for item in fused))


def late_scores(name: str, rankings: list[Ranking], work: Path) -> dict[str, list[float]]:
    """Late interaction over MiniLM's token vectors, of the first 30 candidates."""
    path = work / f"{name}.late.json"
    if path.is_file():
        found: dict[str, list[float]] = json.loads(path.read_text())
        return found
    model = LateInteraction(ensure_model("all-MiniLM-L6-v2", "fp32", load_settings().machine))
    found = {r.query_id: model.scores(r.query, [c.text for c in r.candidates[:30]]).tolist() for r in rankings}
    path.write_text(json.dumps(found))
    return found


def parts(name: str, work: Path) -> tuple[list[Ranking], list[Ranking], list[Ranking]]:
    """Queries to learn from, held out, and to measure."""
    rankings = candidates(name, work)
    taught = TAUGHT.get(name, 0)
    held = HELD if taught else 0
    return rankings[:taught], rankings[taught : taught + held], rankings[taught + held :][:MEASURED]


def sentences(rankings: list[Ranking]) -> Iterator[Ranking]:
    """A sentence as the query of its passage, among other candidates of the query that the passage came from."""
    rng = random.Random(5)
    for ranking in rng.sample(rankings, min(SENTENCES, len(rankings))):
        own = rng.choice(ranking.candidates[:10])
        found = [part for part in re.split(r"(?<=[.?!])\s+", own.text[:700]) if 5 <= len(part.split()) <= 30]
        others = [item for item in ranking.candidates if item.id != own.id]
        if found and len(others) >= 7:
            mixed = (
                replace(own, label=1.0, score=1.0),
                *(replace(c, label=None, score=0.0) for c in rng.sample(others, 7)),
            )
            yield replace(ranking, query_id=f"sentence {ranking.query_id}", query=rng.choice(found), candidates=mixed)


def train(work: Path, out: Path, minutes: float) -> None:
    """`braid-reranker distil` on the taught sets, with the builtin teacher."""
    from reranker.cli import run_distil

    rankings: list[Ranking] = []
    for name in TAUGHT:
        taught, held, _ = parts(name, work)
        rankings += [
            replace(r, query_id=f"{name} {r.query_id}", candidates=r.candidates[:TRAINED_DEPTH]) for r in taught + held
        ]
    rankings += list(sentences(rankings))
    write_rankings(work / "train.jsonl", rankings)
    student = ensure_model("all-MiniLM-L6-v2", "fp32", load_settings().machine)
    run_distil(
        rankings, None, out, teacher="builtin", student=student, layers="0,1,2", epochs=6, minutes=minutes,
        depth=TRAINED_DEPTH, max_tokens=128, learning_rate=1e-4, batch=6, passages=3, seed=1, threads=2,
        data="squad2dev (SQuAD 2.0, CC BY-SA 4.0), scifact (CC BY 4.0, ODC-By 1.0), awsdocs (CC BY-SA 4.0, Apache-2.0)",
    )  # fmt: skip


def measure(work: Path, folder: Path) -> dict[str, Any]:
    """NDCG@10 and MRR@10 of fused, late interaction and the model, each alone and blended."""
    model = CrossEncoder(folder, threads=2)
    settings = model_settings(folder)
    found: dict[str, Any] = {}
    scored: dict[str, list[JudgedQuery]] = {}
    pairs, seconds = 0, 0.0
    for name in (*TAUGHT, *UNSEEN):
        *_, rankings = parts(name, work)
        late = late_scores(name, rankings, work)
        _, qrels = harness.queries(name)
        rankings = [r for r in rankings if len(late.get(r.query_id, ())) >= min(DEPTH, len(r.candidates))]
        if not rankings:
            continue
        rows: dict[str, list[tuple[float, float]]] = {}
        scored[name] = []
        for ranking in rankings:
            first = ranking.candidates[:DEPTH]
            grades = np.array([max(item.label or 0.0, 0.0) for item in first])
            ideal = ideal_dcg(qrels[ranking.query_id].values())
            fused = min_max(np.array([item.score for item in first]))
            began = time.perf_counter()
            logits = np.asarray(model.score(ranking.query, [item.text for item in first]).logits, np.float64)
            seconds += time.perf_counter() - began
            pairs += len(first)
            own = min_max(np.array(late[ranking.query_id][: len(first)]))
            by_late = (1 - LATE_SHARE) * fused + LATE_SHARE * own
            ways = {
                "fused": fused,
                "late alone": own,
                "late 0.4": by_late,
                "student alone": logits,
                **{f"student {w}": (1 - w) * fused + w * min_max(logits) for w in (0.1, 0.2, 0.3, 0.4, 0.5)},
                "late 0.4, then student 0.2": 0.8 * ((1 - LATE_SHARE) * fused + LATE_SHARE * own)
                + 0.2 * min_max(logits),
            }
            for way, scores in ways.items():
                rows.setdefault(way, []).append((ndcg(scores, grades, ideal), mrr(scores, grades)))
            scored[name].append(judged_query(ranking.query_id, fused, logits, grades, ideal))
        found[name] = {
            "queries": len(rankings),
            "seen": name in TAUGHT,
            "NDCG@10": {way: round(100 * float(np.mean([v for v, _ in values])), 2) for way, values in rows.items()},
            "MRR@10": {way: round(100 * float(np.mean([v for _, v in values])), 2) for way, values in rows.items()},
            "student 0.3 against fused": interval(rows["student 0.3"], rows["fused"]),
            "student 0.3 against late 0.4": interval(rows["student 0.3"], rows["late 0.4"]),
        }
        print(name, json.dumps(found[name]), flush=True)
    known = [item for name in TAUGHT for item in scored.get(name, ())]
    if known:
        fitted = fit_settings(known, settings, method="platt")
        found["calibrated on other queries of the taught sets"] = {
            "weight": fitted.weight,
            "unseen sets, before and after, NDCG@10": {
                name: [round(100 * curve(scored[name], fitted, np.array([w]))[0].ndcg, 2) for w in (0.0, fitted.weight)]
                for name in UNSEEN
                if name in scored
            },
        }
    found["ms per pair"] = round(1000 * seconds / max(1, pairs), 3)
    return found


def interval(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> list[float]:
    """Mean difference of NDCG@10 x 100 and its 95 % bootstrap interval over queries."""
    differences = 100 * (np.array(one)[:, 0] - np.array(other)[:, 0])
    means = np.random.default_rng(0).choice(differences, (2000, len(differences))).mean(axis=1)
    return [round(float(value), 2) for value in (differences.mean(), *np.quantile(means, [0.025, 0.975]))]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("step", choices=["train", "measure"])
    arguments.add_argument("--work", type=Path, required=True)
    arguments.add_argument("--model", type=Path, help="Default: student in the work folder.")
    arguments.add_argument("--minutes", type=float, default=17.0)
    chosen = arguments.parse_args()
    model = chosen.model or chosen.work / "student"
    if chosen.step == "train":
        train(chosen.work, model, chosen.minutes)
        return
    figures = measure(chosen.work, model)
    harness.write_result("distil", "see benchmarks/distil.md", figures)


if __name__ == "__main__":
    main()
