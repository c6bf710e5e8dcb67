"""Embedding models compared, and their calibrations: `python benchmarks/models.py --data FOLDER MODEL...`.

Method: models.md.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cache as near_cache
import harness
import models_data
import numpy as np
from models_data import Array, Encoded, LexicalSide, Part
from tokenizers import Tokenizer

from app.cache.normal_form import differs
from app.calibration import SHIPPED as CALIBRATIONS
from app.calibration import AnswerThresholds, calibration_for, read_calibration, split_name
from app.config import load_settings
from app.embedding.encoder import Encoder
from app.evaluation.calibrate import Collection, make_calibration, write_calibration
from app.evaluation.collect import QueryLegs
from app.evaluation.comparison import compare
from app.evaluation.general_weights import examples_of, train
from app.evaluation.measures import measure
from app.evaluation.ranking import normalize_all
from app.evaluation.thresholds import abstention, weigh_all
from app.evaluation.token_projection import ProjectionBasis, TokenSample
from app.search.fusion import FusedCandidate, fuse_linear
from app.search.weighting import Weight, learned_weight
from app.tuning import SHIPPED, WeightModel

WEIGHT, DEPTH, CONTEXT = 0.4, 50, 5
OWN, FOREIGN = 100, 60
"""Questions of each set that are weighed."""
CRITERION = ("squad2dev", "covidqa")
"""The sets that MiniLM's thresholds were chosen on."""
BASELINE = "all-MiniLM-L6-v2"


@dataclass(frozen=True, slots=True)
class Side:
    """One set seen by one model."""

    part: Part
    vectors: Encoded
    own: dict[str, QueryLegs]
    shorter: dict[str, QueryLegs]
    foreign: dict[str, QueryLegs]

    @classmethod
    def of(cls, part: Part, lexical: LexicalSide, vectors: Encoded) -> Side:
        ids = [row["_id"] for row in part.rows]
        own = dict(zip(part.queries, vectors.queries, strict=True))
        foreign = dict(zip(lexical.foreign, vectors.foreign, strict=True))
        return cls(
            part,
            vectors,
            models_data.with_dense(lexical.own, own, vectors.passages, ids),
            models_data.with_dense(lexical.shorter, own, vectors.passages, ids),
            models_data.with_dense(lexical.foreign, foreign, vectors.passages, ids),
        )

    @property
    def tokens(self) -> TokenSample:
        """A sample of the passages' token vectors; the ids of all passages are counted."""
        rows = np.sort(
            np.random.default_rng(0).choice(
                len(self.vectors.tokens), min(60_000, len(self.vectors.tokens)), replace=False
            )
        )
        counts = np.zeros(int(self.vectors.tokens.max()) + 1)
        for passage in range(len(self.part.rows)):
            counts[np.unique(self.vectors.of(passage)[1])] += 1
        return TokenSample(self.vectors.hidden[rows], self.vectors.tokens[rows], counts / len(self.part.rows))


def ndcg(part: Part, rankings: Mapping[str, Sequence[str]]) -> float:
    return round(100 * measure(part.qrels, rankings).means["NDCG@10"], 2)


def weigh(legs: QueryLegs, model: WeightModel) -> float:
    return learned_weight(model, Weight(SHIPPED.alpha, "default", ""), legs.query, legs.lexical, legs.dense).alpha


def reranked(side: Side, fused: Mapping[str, list[FusedCandidate]], basis: ProjectionBasis) -> dict[str, list[str]]:
    """Rankings after MaxSim over packed token vectors, both scores min-max normalised over the first candidates."""
    codec = basis.codec()
    place = {row["_id"]: number for number, row in enumerate(side.part.rows)}
    packed: dict[str, bytes] = {}
    found = {}
    for number, (query, ranked) in enumerate(fused.items()):
        head = ranked[:DEPTH]
        for item in head:
            if item.id not in packed:
                packed[item.id] = codec.pack(*side.vectors.of(place[item.id]))
        late = codec.score(codec.query(*side.vectors.of_query(number)), [packed[item.id] for item in head])
        mixed = (1 - WEIGHT) * scaled(np.array([item.score for item in head])) + WEIGHT * scaled(late)
        order = np.argsort(-mixed, kind="stable")
        found[query] = [head[spot].id for spot in order] + [item.id for item in ranked[DEPTH:]]
    return found


def scaled(scores: Array) -> Array:
    spread = np.ptp(scores)
    return (scores - scores.min()) / spread if spread else np.ones_like(scores)


def padded(sample: TokenSample, vocabulary: int) -> TokenSample:
    return replace(sample, shares=np.pad(sample.shares, (0, max(0, vocabulary - len(sample.shares))))[:vocabulary])


def ranking_figures(
    sides: Mapping[str, Side], tokenizer: Tokenizer, model: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """NDCG@10 x 100 of each set; weight model and projection of a set come from the others. And the rankings."""
    data = {name: examples_of(side.part.qrels, side.own) for name, side in sides.items()}
    harder = {name: examples_of(side.part.qrels, side.shorter) for name, side in sides.items()}
    samples = {name: padded(side.tokens, tokenizer.get_vocab_size()) for name, side in sides.items()}
    figures, rankings = {}, {}
    for name, side in sides.items():
        rest = [other for other in sides if other != name]
        weights = train([data[other] for other in rest], [harder[other] for other in rest], embedding_model=model)
        fixed = {key: item.ranking(SHIPPED.alpha) for key, item in normalize_all(side.own, "min_max").items()}
        fused = {
            key: fuse_linear(legs.lexical, legs.dense, weigh(legs, weights), bonus=legs.bonus)
            for key, legs in side.own.items()
        }
        late = reranked(side, fused, ProjectionBasis.of([samples[other] for other in rest], tokenizer))
        rankings[name] = late
        figures[name] = {
            "queries": len(side.own),
            "passages": len(side.part.rows),
            "BM25": ndcg(side.part, {key: [c.id for c in legs.lexical] for key, legs in side.own.items()}),
            "dense": ndcg(side.part, {key: [c.id for c in legs.dense] for key, legs in side.own.items()}),
            "hybrid, 0.4": ndcg(side.part, fixed),
            "hybrid, learned": ndcg(side.part, {key: [c.id for c in ranked] for key, ranked in fused.items()}),
            "and late interaction": ndcg(side.part, late),
            "CPU ms a passage": round(side.vectors.cpu_ms, 1),
        }
    keys = ("BM25", "dense", "hybrid, 0.4", "hybrid, learned", "and late interaction", "CPU ms a passage")
    figures["mean"] = {key: round(float(np.mean([item[key] for item in figures.values()])), 2) for key in keys}
    return figures, rankings


def searches(side: Side, legs: Mapping[str, QueryLegs]) -> list[tuple[str, list[Any]]]:
    """Questions with the passages that an answer would be made from."""
    rows = {row["_id"]: models_data.as_hit(row) for row in side.part.rows}
    best = {
        key: fuse_linear(item.lexical, item.dense, SHIPPED.alpha, bonus=item.bonus)[:CONTEXT]
        for key, item in legs.items()
    }
    return [(legs[key].query.text, [rows[item.id] for item in found]) for key, found in best.items()]


def collections(sides: Mapping[str, Side], tokenizer: Tokenizer) -> list[Collection]:
    found = []
    for name, side in sides.items():
        sample = random.Random(0).sample(side.part.rows, min(600, len(side.part.rows)))
        asked = name in CRITERION
        found.append(
            Collection(
                name=f"{name}, a part",
                licence=models_data.SETS[name],
                passages=[row["text"] for row in sample],
                tokens=padded(side.tokens, tokenizer.get_vocab_size()),
                qrels=side.part.qrels,
                legs=side.own,
                shorter=side.shorter,
                own=searches(side, side.own)[:OWN] if asked else (),
                foreign=searches(side, side.foreign)[:FOREIGN] if asked else (),
            )
        )
    return found


def refusals(sides: Mapping[str, Side], encoder: Encoder, thresholds: AnswerThresholds) -> dict[str, Any]:
    """Share of questions, in percent, on which an answer is withheld."""
    return {
        name: {
            kind: round(100 * abstention(weigh_all(searches(sides[name], legs)[:most], encoder), thresholds), 1)
            for kind, legs, most in (("own", sides[name].own, OWN), ("foreign", sides[name].foreign, FOREIGN))
        }
        for name in CRITERION
    }


def near(encoder: Encoder, threshold: float) -> dict[str, Any]:
    """Pairs of queries that the gate and the cosine take for the same: those that are, and those that are not."""
    found = {}
    for name, rows in near_cache.own_rows().items():
        gate = near_cache.pairs_of(encoder, [row for row in rows if differs(row[0], row[1]) is None])
        served = [pair for pair in gate if pair.cosine >= threshold]
        found[name] = {
            "hits": sum(pair.same for pair in served),
            "hits of the gate alone": sum(pair.same for pair in gate),
            "wrong": sum(not pair.same for pair in served),
        }
    return found


def query_ms(encoder: Encoder, texts: Sequence[str]) -> dict[str, float]:
    """Processor time of one query (ms)."""
    import time

    spent = []
    for text in texts:
        began = time.process_time()
        encoder.encode_query(text)
        spent.append(1000 * (time.process_time() - began))
    return harness.percentiles(spent)


def xquad(encoder: Encoder, language: str) -> float:
    """Mean reciprocal rank of the right paragraph by the dense leg alone."""
    texts, judged = harness.queries(f"xquad-{language}")
    rows = harness.corpus(f"xquad-{language}")
    chosen = sorted(random.Random(5).sample(sorted(texts), min(models_data.XQUAD_QUERIES, len(texts))))
    passages = encoder.encode_passages([row["text"] for row in rows])
    ranks = []
    for query, vector in zip(chosen, encoder.encode_queries([texts[q] for q in chosen]), strict=True):
        right = {document for document, grade in judged[query].items() if grade > 0}
        order = np.argsort(-(passages @ vector), kind="stable")
        ranks.append(next(1 / (rank + 1) for rank, place in enumerate(order) if rows[place]["_id"] in right))
    return round(float(np.mean(ranks)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", help=f"ids of models in the cache; one of them {BASELINE}")
    parser.add_argument("--data", type=Path, required=True, help="a folder for legs and vectors")
    parser.add_argument("--passages", type=int, default=models_data.PASSAGES, help="at most so many of each set")
    parser.add_argument("--foreign", type=int, default=models_data.FOREIGN, help="questions of other sets for each")
    parser.add_argument("--encode-only", action="store_true", help="collect legs, encode, and measure nothing")
    parser.add_argument("--twins", action="store_true", help="fp32 goes by int8's vectors; only thresholds are its own")
    parser.add_argument("--write", nargs="*", default=[], metavar="MODEL", help="write their calibrations")
    parser.add_argument("--xquad", action="store_true", help="the dense leg on XQuAD, too")
    arguments = parser.parse_args()
    lexical, all_parts = models_data.lexical_sides(arguments.data), models_data.parts()
    for name in models_data.SETS:
        narrow = models_data.narrowed(all_parts[name], lexical[name], arguments.passages, arguments.foreign)
        all_parts[name], lexical[name] = narrow
    figures: dict[str, Any] = {}
    rankings: dict[str, Any] = {}
    for model in arguments.models:
        twin = f"{model}-int8" if arguments.twins and model != BASELINE and not model.endswith("-int8") else model
        loaded: list[Encoder] = []
        sides = {}
        for name, part in all_parts.items():
            foreign = {key: legs.query.text for key, legs in lexical[name].foreign.items()}
            vectors = models_data.encoded(twin, part, foreign, arguments.data, loaded)
            sides[name] = Side.of(part, lexical[name], vectors)
        if arguments.encode_only:
            continue
        tokenizer = Tokenizer.from_file(str(load_settings().machine.cache_dir / "models" / model / "tokenizer.json"))
        row: dict[str, Any] = {}
        if twin == model:
            row["NDCG@10"], rankings[model] = ranking_figures(sides, tokenizer, split_name(model)[0])
            print(model, json.dumps(row["NDCG@10"]["mean"]), flush=True)
        kept = arguments.data / model / "measured.json"
        if model in arguments.write or not kept.is_file():
            measured = measured_thresholds(model, sides, tokenizer, model in arguments.write)
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(measured))
        row |= json.loads(kept.read_text())
        if arguments.xquad:
            encoder = models_data.load_model(model)
            row["dense on XQuAD, mean reciprocal rank"] = {
                language: xquad(encoder, language) for language in models_data.XQUAD
            }
        figures[model] = row
    if arguments.encode_only:
        return
    for model in set(rankings) - {BASELINE}:
        if BASELINE in rankings:
            figures[model]["after reranking, against MiniLM"] = {
                name: against(all_parts[name], rankings[BASELINE][name], rankings[model][name]) for name in all_parts
            }
    harness.write_result("models", "benchmarks/models.md", {"passages of a set": arguments.passages, "models": figures})


def measured_thresholds(model: str, sides: Mapping[str, Side], tokenizer: Tokenizer, write: bool) -> dict[str, Any]:
    """The calibration of a model, made and written first if wanted, and what it does to questions and queries."""
    encoder, row = models_data.load_model(model), {}
    if write:
        folder, (name, precision) = CALIBRATIONS / split_name(model)[0], split_name(model)
        base = read_calibration(folder, name, "int8") if precision == "fp32" else None
        made = make_calibration(collections(sides, tokenizer), encoder, model, tokenizer, base)
        row["medians of cosines"] = made.file.about["answers"]["medians of cosines"]
        row["withheld, %"] = next(
            item
            for item in made.file.about["answers"]["withheld, %"]
            if item["min_cosine"] == made.file.answers.min_cosine
        )
        print(*write_calibration(made, folder), sep="\n", flush=True)
    calibration = calibration_for(load_settings().embedding, model)
    if calibration is not None:
        if not write:
            row["withheld, %"] = refusals(sides, encoder, calibration.answers)
        row["thresholds"] = calibration.answers.model_dump()
        row["near-identical queries"] = {
            "threshold": calibration.near_min_cosine,
            **near(encoder, calibration.near_min_cosine),
        }
    row["CPU ms a query"] = query_ms(encoder, list(sides["covidqa"].part.queries.values())[:50])
    return row


def against(part: Part, before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    found = compare(
        measure(part.qrels, before), measure(part.qrels, after), "NDCG@10", names=("before", "after"), permutations=999
    )
    return {
        "points": round(100 * found.mean_difference, 2),
        "interval": [round(100 * found.low, 2), round(100 * found.high, 2)],
    }


if __name__ == "__main__":
    main()
