"""When to abstain, and which sentence to quote: `python benchmarks/answers.py`. Method: answers.md."""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import random
import re
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import harness
import httpx2
import numpy as np

from app.calibration import AnswerThresholds, calibration_for
from app.config import load_settings
from app.embedding.encoder import Encoder, load_encoder
from app.generation import evidence
from app.generation.answer import Generator
from app.generation.evidence import TextEncoder, Vectors
from app.passage import Hit

MODEL = "all-MiniLM-L6-v2"
FOREIGN = {"squad2dev": ("covidqa", "cranfield"), "covidqa": ("squad2dev", "cranfield")}
SHARES = (0.0, 0.4, 0.6, 0.8, 1.0)
RANK_WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.4)
LIMITS = (6, 12, 24)
COSINES = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
COVERAGES = (0.34, 0.5, 0.67, 0.8, 1.01)


def sample(name: str, count: int) -> dict[str, str]:
    texts, _ = harness.queries(name)
    chosen = random.Random(7).sample(sorted(texts), min(count, len(texts)))
    return {query_id: texts[query_id] for query_id in chosen}


def gather(name: str, count: int) -> dict[str, Any]:
    """The top 5 passages of questions that the collection answers, and of questions of other collections."""
    own = sample(name, count)
    foreign = {k: v for other in FOREIGN[name] for k, v in sample(other, count // 2).items()}
    found: dict[str, Any] = {"own": [], "foreign": []}
    with harness.braid_up(str(harness.corpus_file(name))) as up, httpx2.Client(base_url=up["url"], timeout=60) as http:
        for group, questions in (("own", own), ("foreign", foreign)):
            for query_id, text in questions.items():
                body = {"query": text, "size": 5}
                results = http.post("/v1/search", json=body).raise_for_status().json()["results"]
                found[group].append((query_id, text, [as_hit(item) for item in results]))
    return found


def as_hit(item: dict[str, Any]) -> Hit:
    fields = {name: item[name] for name in Hit.__dataclass_fields__ if name in item}
    return Hit(**{**fields, "position": 0, "topic_tags": tuple(item["topic_tags"])})


def abstaining(weighed: dict[str, list[evidence.Evidence]]) -> list[dict[str, Any]]:
    """Share of questions (in percent) on which each pair of thresholds abstains."""
    rows = []
    for cosine in COSINES:
        for coverage in COVERAGES:
            tried = AnswerThresholds(min_cosine=cosine, min_covered_cosine=cosine / 2, min_coverage=coverage)
            shares = {
                group: round(100 * statistics.mean(not evidence.is_relevant(e, tried) for e in items), 1)
                for group, items in weighed.items()
            }
            rows.append({"min_cosine": cosine, "min_coverage": coverage, **shares})
    return rows


def quoting(name: str, found: dict[str, Any], encoder: TextEncoder) -> list[dict[str, Any]]:
    """How well the quoted sentences hold the answer, by the parts of a sentence's score and how many are embedded."""
    _, judged = harness.queries(name)
    gold = json.loads((harness.SETS / name / "answers.json").read_text()) if name == "covidqa" else {}
    shipped = calibration_for(load_settings().embedding, MODEL)
    assert shipped is not None
    rows = []
    for share, rank, limit in itertools.product(SHARES, RANK_WEIGHTS, LIMITS):
        right, recalls, precisions = [], [], []
        scored = shipped.answers.model_copy(update={"cosine_share": share, "rank_weight": rank})
        generator = Generator(load_settings(), encoder, replace(shipped, answers=scored))
        with patch.object(evidence, "MAX_SENTENCES", limit):
            for query_id, text, hits in found["own"]:
                answer = generator.answer(text, hits, timeout_s=60)
                relevant = {d for d, grade in judged[query_id].items() if grade > 0}
                if answer.citations and relevant & {hit.document_id for hit in hits}:
                    right.append(answer.citations[0].document_id in relevant)
                if query_id in gold:
                    said, wanted = words(answer.text), words(gold[query_id])
                    recalls.append(len(said & wanted) / len(wanted))
                    precisions.append(len(said & wanted) / len(said))
        row: dict[str, Any] = {"cosine_share": share, "rank_weight": rank, "sentences": limit}
        row["first citation relevant"] = round(100 * statistics.mean(right), 1)
        if recalls:
            row["answer's words recalled"] = round(100 * statistics.mean(recalls), 1)
            row["answer's words precision"] = round(100 * statistics.mean(precisions), 1)
        rows.append(row)
    return rows


class Remembering:
    """The encoder, each text embedded once: the grid asks for the same sentences over and over."""

    def __init__(self, encoder: Encoder) -> None:
        self._known: dict[str, Vectors] = {}
        self.encode_query = functools.cache(encoder.encode_query)
        self.token_offsets = encoder.token_offsets
        self._encode = encoder.encode_passages

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._encode(new), strict=True))
        return np.stack([self._known[text] for text in texts])


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", text.lower())) or {""}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=200)
    arguments = parser.parse_args()
    encoder = Remembering(load_encoder(load_settings()))
    figures = {}
    for name in FOREIGN:
        found = gather(name, arguments.questions)
        weighed = {
            g: [evidence.weigh(text, hits, encoder, evidence.UNCALIBRATED) for _, text, hits in found[g]] for g in found
        }
        figures[name] = {"abstains on, %": abstaining(weighed), "quoting": quoting(name, found, encoder)}
    harness.write_result("answers", "benchmarks/answers.md", {"sets": figures})


if __name__ == "__main__":
    main()
