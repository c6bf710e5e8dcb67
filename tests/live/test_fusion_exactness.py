"""Fused orders against an oracle that is computed from the legs' own full lists, on one shard and on three."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import running_braid

pytestmark = pytest.mark.live

WORDS = ["valve", "pump", "motor", "crane", "bridge", "tower", "turbine", "boiler", "engine", "gear", "chain", "wheel"]
QUERIES = ["valve of the pump", "a bridge with a tower", "steam", "zzz unknown", "gear gear chain"]


def rows() -> Iterator[dict[str, str]]:
    for n in range(70):
        first, second = WORDS[n % 12], WORDS[(n * 5 + n // 12) % 12]
        text = f"The {first} number {n} stands beside the {second}. It is checked every {n % 7 + 1} days."
        yield {"_id": f"d{n:02}", "title": f"{first} {n}", "text": text, "source_id": "odd" if n % 2 else "even"}


@pytest.fixture(scope="module", params=[1, 3], ids=["1 shard", "3 shards"])
def service(request: pytest.FixtureRequest, node_settings: Any, tmp_path_factory: Any) -> Iterator[httpx2.Client]:
    path: Path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows()))
    with running_braid(env={"BRAID_SHARDS": str(request.param)}) as up:
        env = {"BRAID_DATA_DIR": str(up["data"]), "PATH": os.environ["PATH"], "BRAID_SHARDS": str(request.param)}
        subprocess.run([sys.executable, "-m", "app.cli", "ingest", str(path)], check=True, env=env, capture_output=True)
        with httpx2.Client(base_url=up["url"], timeout=60, trust_env=False) as client:
            client.headers["x-shards"] = str(request.param)
            yield client


def search(service: httpx2.Client, **body: Any) -> dict[str, Any]:
    answer = service.post("/v1/search", json={"size": 100, **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def leg(service: httpx2.Client, query: str, mode: str, narrowed: dict[str, Any]) -> list[tuple[str, float]]:
    results = search(service, query=query, mode=mode, filter=narrowed)["results"]
    return [(item["document_id"], item["score"]) for item in results]


def linear(legs: list[list[tuple[str, float]]], weights: tuple[float, float]) -> dict[str, float]:
    fused: dict[str, float] = {}
    for scored, weight in zip(legs, weights, strict=True):
        values = [score for _, score in scored]
        for name, score in scored:
            spread = max(values) - min(values)
            share = 1.0 if spread == 0 else (score - min(values)) / spread or 0.001
            fused[name] = fused.get(name, 0.0) + weight * share
    return fused


def rrf(legs: list[list[tuple[str, float]]]) -> dict[str, float]:
    fused: dict[str, float] = {}
    for scored in legs:
        for rank, (name, _) in enumerate(scored, 1):
            fused[name] = fused.get(name, 0.0) + 1 / (60 + rank)
    return fused


@pytest.mark.parametrize("narrowed", [{}, {"source_id": ["odd"]}], ids=["all", "filtered"])
@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("fusion", [{"method": "linear"}, {"method": "linear", "alpha": 0.8}, {"method": "rrf"}])
def test_the_fused_order_is_the_oracle_s(
    service: httpx2.Client, query: str, fusion: dict[str, Any], narrowed: dict[str, Any]
) -> None:
    legs = [leg(service, query, mode, narrowed) for mode in ("lexical", "dense")]
    alpha = fusion.get("alpha", 0.5)
    wanted = rrf(legs) if fusion["method"] == "rrf" else linear(legs, (1 - alpha, alpha))
    for explain in (False, True):
        found = search(service, query=query, fusion=fusion, filter=narrowed, explain=explain)
        scores = {item["document_id"]: item["score"] for item in found["results"]}
        assert scores == pytest.approx(wanted, abs=1e-4)
        assert [item["score"] for item in found["results"]] == sorted(scores.values(), reverse=True)
        assert found["total"] == len(wanted)
        assert found["degraded"] == []
    assert found["explanation"]["way"] == "legs"
