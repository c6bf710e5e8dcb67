"""Tuning (`braid tune`): a search for better fusion settings on a part of the queries, checked on the rest.

Settings are tried one after the other, each at its own best dense share: boosts of neighbouring words and titles, k1
and b of BM25 (only for a scratch index), candidates, normalisation, the share itself, then a weight per query, then
share and depth of the reranker, if there is one. A change is kept only if it gains `LEAST_GAIN` and more than one
standard error of the difference between the queries (the rule of Breiman et al., CART, 1984), so that nothing is
adopted that a small number of judgements can't show. The held-out part is used once, at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from app.evaluation.check import HeldOutCheck, shares_in_service
from app.evaluation.collect import Load, QueryLegs, collect, require_majority
from app.evaluation.comparison import Comparison, compare
from app.evaluation.dataset import JudgedSet, sample_queries, split_queries
from app.evaluation.learning import GRID, Array, Examples, best_fixed, fit, shares_of, value_at
from app.evaluation.measures import Measurement
from app.evaluation.objective import MeasureName, Objective, examples
from app.evaluation.ranking import NormalizedLegs, normalize_all, rrf_ranking
from app.evaluation.reranked import rerank_all
from app.evaluation.scratch import ScratchIndex
from app.evaluation.target import EvaluationTarget, query_vectors
from app.evaluation.ways import NO_RERANKER
from app.search.rerank_stage import rerank_parameters
from app.search.weighting import features, model_for
from app.tuning import Bm25, Boosts, Normalization, RerankTuning, Tuning, WeightModel

HELD_OUT = 0.3
LEAST_GAIN = 0.002
"""Minimum gain in the measure's own unit (0..1)."""
_MOST_QUERIES = 800
_DEPTHS = (50, 100, 200)
_NORMALIZATIONS: tuple[Normalization, ...] = ("min_max", "z_score", "l2")
_PHRASE = (0.0, 0.15, 0.5)
_TITLE = (0.0, 0.25, 0.5)
_K1 = (0.9, 1.6, 2.0)
_B = (0.3, 0.5, 0.9)
_COARSE = GRID[::2]
_FOLDS = 5
_FEWEST_TO_LEARN = 50
_RERANK_WEIGHTS = tuple(round(step / 10, 1) for step in range(11))
_RERANK_DEPTHS = (20, 50, 100)
_NOT_BY_DEFAULT = "searches are not reranked by default (BRAID_RERANK_DEFAULT), so nothing was tuned with the reranker"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Step:
    """One attempt: its best dense share, its value on the tuning part, and whether it was kept."""

    tried: str
    alpha: float | None
    value: float
    kept: bool


@dataclass(frozen=True, slots=True)
class TuningResult:
    """The tuning, its steps, and its comparison with the previous tuning on held-out queries."""

    tuning: Tuning
    steps: tuple[Step, ...]
    held_out: dict[str, Measurement]
    comparison: Comparison
    verdict: str
    better: bool
    seconds: float
    failed: dict[str, str]
    notes: tuple[str, ...]


def tune(
    judged: JudgedSet,
    where: EvaluationTarget,
    current: Tuning,
    *,
    scratch: ScratchIndex | None,
    measure_name: MeasureName = "NDCG@10",
    load: Load = Load(),  # noqa: B008 - frozen
    seed: int = 0,
    say: Say = lambda line: None,
) -> TuningResult:
    """Search for a better tuning than `current`.

    Args:
        judged: the queries; a share of `HELD_OUT` is held out.
        current: the active tuning: start of the search and baseline of the result.
        scratch: the index, if it may be closed; None: k1 and b stay unchanged.

    Raises:
        InvalidInput: there are too few judged queries to split.
        StoreError: the cluster stayed unavailable, or all queries failed.
    """
    began = time.perf_counter()
    held_part, tuning_part = split_queries(judged, share=HELD_OUT, seed=seed)
    tuning_part = sample_queries(tuning_part, _MOST_QUERIES, seed=seed)
    search = _Search(tuning_part, where, current, measure_name, load, say)
    search.boosts()
    if scratch is not None:
        search.bm25(scratch)
    search.depth_and_normalization()
    search.fine_alpha()
    search.rrf()
    search.learn()
    search.rerank()
    chosen, search_seconds = search.best, time.perf_counter() - began
    say("checking on the held-out queries")
    check = HeldOutCheck(held_part, where, load)
    before, after = check.compare_tunings(current, chosen, scratch)
    comparison = compare(before, after, measure_name, names=("before", "tuned"), permutations=4999)
    better = comparison.mean_difference > 0 and comparison.p_randomization < 0.05
    notes = search.notes
    if scratch is None:
        notes.append("k1 and b were not tuned: the queries are judged against a live index, which must not be closed")
    about = {
        "set": judged.name,
        "split": judged.split,
        "date": time.strftime("%Y-%m-%d"),
        "measure": measure_name,
        "queries": {"tuned on": len(tuning_part.queries), "held out": len(held_part.queries)},
        "held out": {
            "before": round(before.means[measure_name], 4),
            "tuned": round(after.means[measure_name], 4),
            "difference": round(comparison.mean_difference, 4),
            "interval": [round(comparison.low, 4), round(comparison.high, 4)],
            "p": round(comparison.p_randomization, 4),
        },
        "embedding_model": where.encoder.name,
        "reranker": where.default_reranker.name if where.default_reranker is not None else None,
    }
    return TuningResult(
        tuning=chosen.model_copy(update={"about": about}),
        steps=tuple(search.steps),
        held_out={"before": before, "tuned": after},
        comparison=comparison,
        verdict=_verdict(comparison, better),
        better=better,
        seconds=round(search_seconds, 1),
        failed={**search.failed, **check.failed},
        notes=tuple(notes),
    )


class _Search:
    """The search on the tuning part; `best` is the best tuning so far."""

    def __init__(
        self, judged: JudgedSet, where: EvaluationTarget, start: Tuning, measure_name: MeasureName, load: Load, say: Say
    ) -> None:
        self._judged, self._where, self._load, self._say = judged, where, load, say
        self._objective = Objective(judged.qrels, measure_name)
        self._vectors = query_vectors(judged.queries, where.encoder)
        self.best = start.model_copy(update={"weight_model": None, "about": {}})
        self.steps: list[Step] = []
        self.failed: dict[str, str] = {}
        self.notes: list[str] = []
        self._legs = self._collect(start, None)
        self._values, alpha = self._best_share(self._legs, start)
        self.best = self.best.model_copy(update={"alpha": alpha})
        self._note("as it is", alpha, float(self._values.mean()), kept=True)

    def boosts(self) -> None:
        for phrase in _PHRASE:
            self._try_boosts(self.best.boosts.model_copy(update={"phrase": phrase}), f"phrase boost {phrase}")
        for title in _TITLE:
            self._try_boosts(
                self.best.boosts.model_copy(update={"title": title, "heading": title}), f"title boost {title}"
            )

    def bm25(self, scratch: ScratchIndex) -> None:
        """Tune k1, then b; the index keeps the best values."""
        for k1 in _K1:
            self._try_bm25(scratch, Bm25(k1=k1, b=self.best.bm25.b))
        for b in _B:
            self._try_bm25(scratch, Bm25(k1=self.best.bm25.k1, b=b))
        scratch.similarity(self.best.bm25)

    def depth_and_normalization(self) -> None:
        for technique in _NORMALIZATIONS:
            for depth in _DEPTHS:
                if (technique, depth) != (self.best.normalization, self.best.candidates):
                    tuning = self.best.model_copy(update={"normalization": technique, "candidates": depth})
                    self._try(tuning, self._legs, f"{technique}, {depth} candidates")

    def fine_alpha(self) -> None:
        curves = self._objective.curves(self._prepared(self.best, self._legs))
        alpha = _steady_best(curves, self.best.alpha)
        self._values = curves[:, int(np.abs(GRID - alpha).argmin())]
        native = self._objective.curves(normalize_all(self._legs, "min_max", self.best.candidates))
        self.best = self.best.model_copy(update={"alpha": alpha, "native_alpha": _steady_best(native, self.best.alpha)})
        self._note("the share itself", alpha, float(self._values.mean()), kept=True)

    def rrf(self) -> None:
        constant = self._where.settings.search.rrf_rank_constant
        value = self._objective.values(
            {query: rrf_ranking(legs, constant) for query, legs in self._legs.items()}
        ).mean()
        self._note(f"reciprocal rank fusion, constant {constant}: for comparison", None, float(value), kept=False)

    def learn(self) -> None:
        """Try a predicted weight per query, by cross-validation on the tuning part."""
        prepared = self._prepared(self.best, self._legs)
        # failed queries have no legs and can't teach anything
        known = [query for query in self._objective.queries if query in prepared]
        objective = Objective({query: self._judged.qrels[query] for query in known}, self._objective.measure)
        cut = {query: self._legs[query].cut(self.best.candidates) for query in known}
        values = {query: features(self._legs[query].query, *cut[query]) for query in known}
        data = examples(values, objective, objective.curves({query: prepared[query] for query in known}))
        fixed = _cross_validated(data, None)
        self._note("one weight for all queries, cross-validated", self.best.alpha, fixed, kept=False)
        shipped = model_for(self.best, self._where.encoder.name, self._where.calibration)
        tried: list[tuple[str, float, WeightModel | None]] = []
        if shipped is not None:
            tried.append(
                ("shipped model", float(value_at(data.curves, shares_of(shipped, data.features)).mean()), None)
            )
        if len(data) >= _FEWEST_TO_LEARN:
            value = _cross_validated(data, lambda part: self._fit(part, shipped, bootstrap=0))
            tried.append(("model trained here, cross-validated", value, self._fit(data, shipped)))
        name, value, model = max(tried, key=lambda item: item[1], default=("", 0.0, None))
        kept = bool(tried) and value >= fixed
        for tried_name, tried_value, _ in tried:
            self._note(f"weight of each query: {tried_name}", None, tried_value, kept=kept and tried_name == name)
        self.best = self.best.model_copy(update={"learned": kept, "weight_model": model if kept else None})

    def rerank(self) -> None:
        """Tune the reranker's share in the final score and its depth, compared with the active values."""
        reranker, settings = self._where.default_reranker, self._where.settings
        if reranker is None:
            off = self._where.reranker is not None
            self.notes.append(_NOT_BY_DEFAULT if off else NO_RERANKER.replace("measured", "tuned"))
            return
        self._say(f"reranking with {reranker.name}")
        depth, own = rerank_parameters(settings.rerank, self.best, reranker)
        depth = min(depth, self.best.candidates)
        shares = shares_in_service(self.best, self._where, self._legs)
        # deeper lists make a search slower, so they are tried only if the reranker is configured for them; explicit
        # settings take precedence over a tuning
        most = min(max(depth, reranker.depth), self.best.candidates)
        allowed = [number for number in _RERANK_DEPTHS if number <= most]
        depths = sorted({depth} if settings.rerank.depth is not None else {*allowed, depth})
        weights = _RERANK_WEIGHTS if settings.rerank.weight is None else (own,)
        found = rerank_all(
            self._judged.queries,
            self._legs,
            shares,
            self._where,
            reranker,
            self.best,
            depth=depths[-1],
            load=self._load,
        )
        self.failed.update(found.failed)

        def values(weight: float, most: int) -> Array:
            return self._objective.values(
                {
                    query: item.ranking(weight, most, calibrated=reranker.calibrated)
                    for query, item in found.queries.items()
                }
            )

        before = values(own, depth)
        self._note("without the reranker: for comparison", None, float(values(0.0, 0).mean()), kept=False)
        self._note(f"reranker's share {own:g}, {depth} deep: as it is", None, float(before.mean()), kept=True)
        tried = [(weight, most, values(weight, most)) for most in depths for weight in weights]
        weight, most, after = max(tried, key=lambda item: (item[2].mean(), -abs(item[0] - own), -item[1]))
        # a failed query counts as no difference
        kept = _is_gain((after - before)[[query in found.queries for query in self._objective.queries]])
        self._note(f"reranker's share {weight:g}, {most} deep", None, float(after.mean()), kept=kept)
        if kept:
            tuned = RerankTuning(reranker=reranker.name, weight=weight, depth=most)
            self.best = self.best.model_copy(update={"rerank": tuned})
            if weight == 0:
                self.notes.append(
                    f"{reranker.name} does not help here, so its share is 0; "
                    "BRAID_RERANK_DEFAULT=false saves the time that it takes"
                )

    def _fit(self, part: Examples, start: WeightModel | None, *, bootstrap: int | None = None) -> WeightModel:
        about = {"set": self._judged.name, "queries": len(part), "measure": self._objective.measure}
        name = self._where.encoder.name
        return fit(
            part,
            embedding_model=name,
            normalization=self.best.normalization,
            start=start,
            about=about,
            bootstrap=bootstrap,
        )

    def _try_bm25(self, scratch: ScratchIndex, bm25: Bm25) -> None:
        if bm25 != self.best.bm25:
            scratch.similarity(bm25)
            tuning = self.best.model_copy(update={"bm25": bm25})
            self._try(tuning, self._collect(tuning, self._legs), f"k1 {bm25.k1:g}, b {bm25.b:g}")

    def _try_boosts(self, boosts: Boosts, name: str) -> None:
        if boosts != self.best.boosts:
            tuning = self.best.model_copy(update={"boosts": boosts})
            self._try(tuning, self._collect(tuning, self._legs), name)

    def _try(self, tuning: Tuning, legs: dict[str, QueryLegs], name: str) -> None:
        values, alpha = self._best_share(legs, tuning)
        # a query that failed on either side counts as no difference
        both = np.array([query in legs and query in self._legs for query in self._objective.queries])
        gains = (values - self._values)[both]
        kept = _is_gain(gains)
        self._note(name, alpha, float(values.mean()), kept=kept)
        if kept:
            self.best = tuning.model_copy(update={"alpha": alpha})
            self._values, self._legs = values, legs

    def _collect(self, tuning: Tuning, dense_from: Mapping[str, QueryLegs] | None) -> dict[str, QueryLegs]:
        found = collect(
            self._judged.queries,
            self._vectors,
            self._where,
            tuning,
            depth=max(*_DEPTHS, self.best.candidates),
            load=self._load,
            dense_from=dense_from,
        )
        self.failed.update(found.failed)
        require_majority(found, len(self._judged.queries))
        return found.legs

    def _prepared(self, tuning: Tuning, legs: Mapping[str, QueryLegs]) -> dict[str, NormalizedLegs]:
        return normalize_all(legs, tuning.normalization, tuning.candidates)

    def _best_share(self, legs: Mapping[str, QueryLegs], tuning: Tuning) -> tuple[Array, float]:
        """Return the measure of each query at the best common share, and that share."""
        curves = self._objective.curves(self._prepared(tuning, legs), _COARSE)
        best = _best_place(_COARSE, curves.mean(axis=0), tuning.alpha)
        return curves[:, best], float(_COARSE[best])

    def _note(self, tried: str, alpha: float | None, value: float, *, kept: bool) -> None:
        self.steps.append(Step(tried, alpha, round(value, 5), kept))
        at = f" at dense share {alpha:g}" if alpha is not None else ""
        self._say(f"{value * 100:6.2f}  {tried}{at}{'  *' if kept else ''}")


def _is_gain(gains: Array) -> bool:
    """Return whether a change with these gains per query is kept."""
    return bool(gains.size and gains.mean() >= max(LEAST_GAIN, gains.std() / np.sqrt(len(gains))))


def _steady_best(curves: Array, near: float) -> float:
    """Return the best share of the mean curve, smoothed over its neighbours: the peak of few queries is noise."""
    padded = np.pad(curves.mean(axis=0), 1, mode="edge")
    return float(GRID[_best_place(GRID, np.convolve(padded, [0.25, 0.5, 0.25], mode="valid"), near)])


def _best_place(grid: Array, means: Array, near: float) -> int:
    """Return the index of the maximum of `means`; of several, the one whose share is nearest to `near`."""
    highest = np.flatnonzero(means >= means.max() - 1e-9)
    return int(highest[np.abs(grid[highest] - near).argmin()])


def _cross_validated(data: Examples, train: Callable[[Examples], WeightModel] | None) -> float:
    """Return the mean value over folds at weights trained on the other folds; `train` None: one weight for all."""
    fold = np.random.default_rng(0).permutation(len(data)) % min(_FOLDS, len(data))
    values: list[float] = []
    for number in range(int(fold.max()) + 1):
        rest, part = data.take(fold != number), data.take(fold == number)
        if not len(rest):
            continue
        shares = best_fixed(rest) if train is None else shares_of(train(rest), part.features)
        values += value_at(part.curves, shares).tolist()
    return float(np.mean(values)) if values else 0.0


def _verdict(comparison: Comparison, better: bool) -> str:
    points, low, high = (100 * x for x in (comparison.mean_difference, comparison.low, comparison.high))
    p = comparison.p_randomization
    told = f"{points:+.2f} points {comparison.measure} on held-out queries ({low:+.2f} to {high:+.2f}, p {p:.3f})"
    if better:
        return f"measurably better: {told}"
    if points < 0:
        return f"worse than the active tuning: {told}"
    return f"not measurably better: {told}"
