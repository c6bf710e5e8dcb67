"""`braid evaluate`: the rows of a reranker in the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.errors import RerankerError
from app.evaluation.collect import Load
from app.evaluation.report import as_dict, as_html, as_markdown
from app.evaluation.results import Evaluation
from app.evaluation.summary import summarise
from app.evaluation.ways import evaluate
from app.tuning import SHIPPED, RerankTuning, Tuning
from tests.unit.evaluation.legs import CannedCluster, CannedEncoder, Scores, Told
from tests.unit.evaluation.sets import judged_set
from tests.unit.evaluation.test_reranked import FIXED, where


def evaluated(
    folder: Path,
    told: Told | None,
    tuning: Tuning = FIXED,
    **options: Any,
) -> Evaluation:
    """Forty queries whose only relevant document both legs have in the third place."""
    texts = {f"q{n:02}": f"text number{n:02}x" for n in range(40)}
    ids = {text: query for query, text in texts.items()}

    def legs(text: str, body: dict[str, Any]) -> Scores:
        ranked = {f"d{n:02}": 10.0 - n / 10 for n in range(30)}
        return {**ranked, ids[text]: 9.85}

    cluster = CannedCluster(list(texts.values()), legs, legs)
    counted: list[int] = []
    found = evaluate(
        judged_set(texts),
        where(cluster, told, **options),
        tuning,
        load=Load(),
        kept_in=folder,
        whole=None,
        alphas=(0.0, 0.5, 1.0),
        reranked=counted.append,
    )
    assert sum(counted) == (40 if told is not None else 0)
    return found


def knowing(query: str, name: str) -> float:
    """Scores of a reranker that knows what is relevant."""
    return 0.9 if name == f"q{query[11:13]}" else 0.1


def mistaken(query: str, name: str) -> float:
    return 1.0 - knowing(query, name)


def rows(found: Evaluation) -> dict[str, float]:
    return {way.name: way.measured.means["NDCG@10"] for way in found.ways if way.group == "rerank"}


def test_the_way_in_force_comes_first_of_the_reranked(tmp_path: Path) -> None:
    found = evaluated(tmp_path, Told(knowing, weight=0.5))
    assert list(rows(found)) == [
        "linear 0.4 + rerank",
        *(f"linear 0.4 + rerank at {weight:g}" for weight in (0.2, 0.4, 0.6, 0.8, 1.0)),
    ]
    assert rows(found)["linear 0.4 + rerank"] == 1.0
    fused = next(way for way in found.ways if way.name == "linear 0.4")
    assert fused.measured.means["NDCG@10"] == pytest.approx(1 / math.log2(4))
    assert found.context["reranker"] == "told"
    first = next(way for way in found.ways if way.group == "rerank")
    assert (first.failed, first.note) == (0, "told, first 20 candidates, weight 0.5")
    assert first.ms_p50 is not None
    assert first.ms_p50 >= 0
    assert not [note for note in found.notes if "rerank" in note]


def test_a_weight_that_is_tried_anyway_has_one_row(tmp_path: Path) -> None:
    assert list(rows(evaluated(tmp_path, Told(knowing, weight=0.6)))) == [
        "linear 0.4 + rerank",
        *(f"linear 0.4 + rerank at {weight:g}" for weight in (0.2, 0.4, 0.8, 1.0)),
    ]


def test_a_reranker_that_harms_is_shown_to_harm(tmp_path: Path) -> None:
    found = evaluated(tmp_path, Told(mistaken, weight=1.0))
    assert rows(found)["linear 0.4 + rerank"] < 0.1
    reported = {way["name"]: way for way in as_dict(summarise(found))["ways"]}
    assert reported["linear 0.4 + rerank"]["against_baseline"]["NDCG@10"]["verdict"] == "worse"


def test_settings_and_tuning_say_how_it_is_reranked(tmp_path: Path) -> None:
    tuned = FIXED.model_copy(update={"rerank": RerankTuning(reranker="told", weight=0.3, depth=15)})

    def note(name: str, tuning: Tuning, **options: Any) -> str:
        found = evaluated(tmp_path / name, Told(knowing), tuning, **options)
        return next(way.note for way in found.ways if way.group == "rerank")

    assert note("tuned", tuned) == "told, first 15 candidates, weight 0.3"
    assert note("set", tuned, rerank_depth=4, rerank_weight=0.7) == "told, first 4 candidates, weight 0.7"
    # the legs are as deep as BRAID_CANDIDATES says, and what is reranked with them
    assert note("few", FIXED, candidates=10) == "told, first 10 candidates, weight 0.5"
    other = tuned.model_copy(update={"rerank": RerankTuning(reranker="another", weight=0.3, depth=15)})
    assert note("another", other) == "told, first 20 candidates, weight 0.5"


def test_more_candidates_than_are_tuned_are_all_fused_before_they_are_reranked(tmp_path: Path) -> None:
    found = evaluated(tmp_path, Told(knowing), FIXED.model_copy(update={"candidates": 10}), candidates=100)
    # all thirty documents are found behind those that were reranked
    lists = {way.name: way.measured.means["Recall@100"] for way in found.ways}
    assert lists["linear 0.4 + rerank"] == lists["linear 0.4"] == 1.0
    assert next(way.note for way in found.ways if way.group == "rerank").startswith("told, first 20 candidates")


def test_failures_are_counted_at_the_reranked_ways_alone(tmp_path: Path) -> None:
    told = Told(knowing)
    told.failing = lambda query: RerankerError("broken") if query.endswith(("03x", "07x")) else None
    found = evaluated(tmp_path, told)
    assert {way.failed for way in found.ways if way.group == "rerank"} == {2}
    assert {way.failed for way in found.ways if way.group != "rerank"} == {0}
    first = next(way for way in found.ways if way.group == "rerank")
    assert first.measured.missing == 2
    assert first.measured.means["NDCG@10"] == pytest.approx(38 / 40)
    assert "2 queries could not be reranked: query 'q0" in found.notes[-1]


def test_where_a_fixed_weight_is_set_the_learned_one_is_not_what_is_reranked(tmp_path: Path) -> None:
    class Known(CannedEncoder):
        name = "all-MiniLM-L6-v2"  # a model that a weight model is shipped for

    def first(name: str, **options: Any) -> str:
        texts = {f"q{n}": f"text{n}x" for n in range(4)}
        ranked = {**{f"d{n:02}": 10.0 - n for n in range(12)}, **{f"q{n}": 0.5 for n in range(4)}}
        cluster = CannedCluster(list(texts.values()), lambda *_: ranked, lambda *_: ranked)
        at = where(cluster, Told(lambda *_: 0.5), Known(list(texts.values())), **options)
        found = evaluate(judged_set(texts), at, SHIPPED, load=Load(), kept_in=tmp_path / name, whole=None)
        assert "learned" in [way.name for way in found.ways]
        return next(iter(rows(found)))

    assert first("learned") == "learned + rerank"
    assert first("fixed", alpha=0.3) == "linear 0.3 + rerank"
    assert first("off", learned_fusion=False) == "linear 0.4 + rerank"


def test_the_reports_show_the_reranked_ways_beside_the_curve(tmp_path: Path) -> None:
    found = evaluated(tmp_path, Told(knowing))
    summary = summarise(found)
    page, markdown, content = as_html(summary), as_markdown(summary), as_dict(summary)
    assert "| linear 0.4 + rerank | rerank |" in markdown
    assert '<td class="muted">rerank</td>' in page
    curves = [part.split("</svg>")[0] for part in page.split("<svg")[1:]][:2]
    for curve in curves:
        # one line for the best of them, by its name, and none on the curve over alpha
        assert curve.count("+ rerank") == 1
        assert ">linear<" in curve
        assert curve.count("stroke-dasharray") == content_lines(content)
    reranked_ways = [way for way in content["ways"] if way["group"] == "rerank"]
    assert len(reranked_ways) == 6
    assert {way["alpha"] for way in reranked_ways} == {None}
    assert all(len(way["per_query"]["NDCG@10"]) == 40 for way in reranked_ways)
    assert "linear 0.4 + rerank" in content["remarks"][0]


def content_lines(content: Mapping[str, Any]) -> int:
    """Single legs, and the best of each other group without a share."""
    groups = [way["group"] for way in content["ways"] if way["alpha"] is None]
    return groups.count("single leg") + len(set(groups) - {"single leg"})


def test_without_a_reranker_the_report_says_so(tmp_path: Path) -> None:
    found = evaluated(tmp_path, None)
    assert rows(found) == {}
    assert found.context["reranker"] == "none"
    assert "no reranker is configured, so reranking was not measured" in found.notes
