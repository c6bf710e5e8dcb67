"""Fixed and learned fusion before and after an upgrade of OpenSearch: `python benchmarks/upgrade.py`.

Method: upgrade.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import harness
import numpy as np
import numpy.typing as npt
from fusion import learned_rankings

from app.calibration import calibration_for
from app.config import Settings, load_settings
from app.dev.node import start_cluster
from app.embedding.encoder import Encoder
from app.evaluation.collect import Load, QueryLegs, collect
from app.evaluation.dataset import JudgedSet, load_set
from app.evaluation.measures import measure
from app.evaluation.ranking import normalize_all, single_rankings
from app.evaluation.target import EvaluationTarget
from app.passage import Candidate, embedding_text
from app.serving.opening import Store, open_store
from app.store.client import Cluster
from app.store.reindex import copy_passages
from app.store.rendering import compose
from app.store.score_check import TEXT, VECTOR, check_scores, lexical_factor
from app.tuning import SHIPPED

Vectors = npt.NDArray[np.float32]

SETS = ("cranfield", "covidqa")
BEFORE, AFTER = "2.19", "3.6"
DEPTH = 100


@dataclass(slots=True)
class Bench:
    """Judged sets, and the vectors of their queries, which no version of OpenSearch changes."""

    judged: dict[str, JudgedSet]
    vectors: dict[str, dict[str, Vectors]]

    def figures(self, name: str, store: Store, cluster: Cluster) -> dict[str, Any]:
        """NDCG@10 of one set in one index, and what a check of the scores says of the index."""
        judged = self.judged[name]
        where = EvaluationTarget(cluster, store.settings.access.tenant, store.encoder, store.settings, 1)
        found = collect(judged.queries, self.vectors[name], where, SHIPPED, depth=DEPTH, load=Load(workers=2))
        assert not found.failed, found.failed
        report = check_scores(
            cluster, cluster.read_alias, text_field=TEXT, vector_field=VECTOR, space_type="innerproduct"
        )
        assert report is not None
        factor = lexical_factor(cluster)
        learned, share = self._learned(name, found.legs)
        raw = {query: replace(legs, lexical=_divided(legs.lexical, factor)) for query, legs in found.legs.items()}
        return {
            "BM25": self._ndcg(name, {query: single_rankings(legs)[0] for query, legs in found.legs.items()}),
            "dense": self._ndcg(name, {query: single_rankings(legs)[1] for query, legs in found.legs.items()}),
            "fixed weight": self._fixed(name, found.legs),
            "learned weight": learned,
            "learned weight, scores of the node as they are": self._learned(name, raw)[0],
            "predicted for": share,
            "lexical factor": factor,
            "score check": str(report),
        }

    def _fixed(self, name: str, legs: Mapping[str, QueryLegs]) -> float:
        prepared = normalize_all(legs, SHIPPED.normalization)
        return self._ndcg(name, {query: item.ranking(SHIPPED.alpha) for query, item in prepared.items()})

    def _learned(self, name: str, legs: Mapping[str, QueryLegs]) -> tuple[float, float]:
        calibration = calibration_for(load_settings().embedding, "all-MiniLM-L6-v2")
        assert calibration is not None
        assert calibration.weight_model is not None
        rankings, share = learned_rankings(legs, calibration.weight_model, SHIPPED.alpha)
        return self._ndcg(name, rankings), round(share, 4)

    def _ndcg(self, name: str, rankings: Mapping[str, list[str]]) -> float:
        return round(measure(self.judged[name].qrels, rankings).means["NDCG@10"], 5)


def _divided(leg: tuple[Candidate, ...], factor: float) -> tuple[Candidate, ...]:
    return tuple(item._replace(score=item.score / factor) for item in leg)


class KnownVectors:
    """An encoder that looks texts up before it embeds them."""

    def __init__(self, encoder: Encoder, known: Mapping[str, Vectors]) -> None:
        self._encoder, self._known = encoder, known

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return np.array(
            [self._known[text] if text in self._known else self._encoder.encode_passages([text])[0] for text in texts]
        )


def kept(file: Path, make: Callable[[], Vectors]) -> Vectors:
    """The vectors of a file, made where it is missing."""
    if not file.exists():
        np.save(file, make())
    found: Vectors = np.load(file)
    return found


def settings_of(release: str, precision: str, url: str | None = None) -> Settings:
    return load_settings(
        opensearch_version=release,
        opensearch_url=url,
        embedding_precision=precision,
        opensearch_timeout_s=60,
        token_vectors=False,
    )


def embedded(name: str, encoder: Encoder, folder: Path) -> tuple[dict[str, Vectors], dict[str, Vectors]]:
    """Vectors of a set's queries by id, and of its passages by text."""
    queries, rows = harness.queries(name)[0], harness.corpus(name)
    texts = [embedding_text(row.get("title", ""), "", row["text"]) for row in rows]
    asked = kept(folder / f"{name}.q.npy", lambda: encoder.encode_queries(list(queries.values())))
    stored = kept(folder / f"{name}.npy", lambda: encoder.encode_passages(texts))
    return dict(zip(queries, asked, strict=True)), dict(zip(texts, stored, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--precision", default="int8", help="of the embedding model; the same on both releases")
    parser.add_argument("--vectors", type=Path, help="a folder to keep the vectors in, for another run")
    arguments = parser.parse_args()
    names: list[str] = arguments.sets
    bench = Bench({name: load_set(harness.SETS / name) for name in names}, {})
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    indexes: dict[str, tuple[str, str]] = {}
    with harness.open_folder() as folder:
        for release in (BEFORE, AFTER):
            machine = settings_of(release, arguments.precision).machine
            with start_cluster(machine, data_dir=folder) as node:
                store = open_store(settings_of(release, arguments.precision, node.url))
                store.put()
                for name in names:
                    if release == BEFORE:
                        bench.vectors[name], known = embedded(name, store.encoder, arguments.vectors or folder)
                        encoder: Any = KnownVectors(store.encoder, known)
                        made = harness.indexed(bench.judged[name], replace(store, encoder=encoder))
                        indexes[name] = made.cluster.read_alias, made.index
                        found[name][f"{BEFORE}"] = bench.figures(name, store, made.cluster)
                    else:
                        alias, old = indexes[name]
                        found[name][f"{AFTER}, upgraded"] = bench.figures(name, store, store.cluster.within(alias))
                        new = f"{alias}-000002"
                        store.cluster.request("PUT", f"/{new}", body=compose(store.rendered))
                        copy_passages(store.cluster, old, new, lambda copied: None)
                        found[name][f"{AFTER}, reindexed"] = bench.figures(name, store, store.cluster.within(new))
                    print(name, found[name], flush=True)
                store.cluster.close()
    differences = {
        name: {
            column: round(steps[f"{AFTER}, reindexed"][column] - steps[BEFORE][column], 5)
            for column in ("fixed weight", "learned weight")
        }
        for name, steps in found.items()
    }
    figures = {"precision": arguments.precision, "after - before, NDCG@10": differences, "sets": found}
    harness.write_result("upgrade", "benchmarks/upgrade.md", figures)


if __name__ == "__main__":
    main()
