"""Many passages of one score on several shards: what a leg returns does not move, repeat or lose any."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest

from app.evaluation.target import evaluation_call
from app.search.retrieval import Retrieval
from app.search.trace import Trace
from app.store.client import Cluster
from app.store.rendering import RenderedResources, compose
from app.store.responses import Leg, Total
from app.tuning import SHIPPED

INDEX, TWINS, SHARDS = "equal-scores", 240, 3
TEXT = "The spare pump of the harbour crane stands in the shed."


@pytest.fixture
def retrieval(cluster: Cluster, rendered: RenderedResources) -> Iterator[Retrieval]:
    """An index of passages of one text, on several shards and in several segments."""
    body = compose(rendered)
    del body["settings"]["index"]["default_pipeline"]
    body["settings"]["index"]["number_of_shards"] = SHARDS
    cluster.request("PUT", f"/{INDEX}", body=body)
    for part in range(3):
        write(cluster, {f"twin-{n:03}": TEXT for n in range(part, TWINS, 3)})
    with ThreadPoolExecutor(1) as executor:
        yield Retrieval(cluster.within(INDEX), executor)
    cluster.request("DELETE", f"/{INDEX}")


def write(cluster: Cluster, texts: dict[str, str]) -> None:
    lines: list[dict[str, Any]] = []
    for name, text in texts.items():
        fields = {"passage_id": name, "document_id": name, "text": text, "tenant": "default", "acl": ["public"]}
        lines += [{"index": {"_id": name}}, fields]
    body = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    assert not cluster.request("POST", f"/{INDEX}/_bulk", params={"refresh": "true"}, body=body)["errors"]


def leg(retrieval: Retrieval, depth: int) -> Leg:
    call = evaluation_call("spare pump crane", tenant="default", tuning=SHIPPED, depth=depth, timeout_ms=60_000)
    trace = Trace()
    found = retrieval.lexical(call, trace)
    assert not trace.degraded
    return found


def test_none_is_lost_or_repeated(retrieval: Retrieval) -> None:
    found = leg(retrieval, TWINS)
    ids = [item.id for item in found.candidates]
    assert sorted(ids) == [f"twin-{n:03}" for n in range(TWINS)]
    assert found.total == Total(TWINS)
    assert list(found.candidates) == sorted(found.candidates, key=lambda item: (-item.score, item.id))


def test_the_cut_is_the_same_each_time(retrieval: Retrieval) -> None:
    """Every page asks anew, and cuts its part of the same candidates."""
    first = leg(retrieval, 100).candidates
    assert len({item.id for item in first}) == 100
    assert all(leg(retrieval, 100).candidates == first for _ in range(10))


def test_few_equal_scores_at_the_cut_are_taken_by_their_ids(retrieval: Retrieval, cluster: Cluster) -> None:
    names = [f"better-{n}" for n in (7, 3, 9, 1, 5, 8, 2, 6, 4, 0)]
    write(cluster, dict.fromkeys(names, f"Spare pump, spare crane. {TEXT}"))
    whole = [item for item in leg(retrieval, TWINS).candidates if item.id in names]
    scores = {item.id: item.score for item in whole}
    assert len(whole) == len(names)
    assert [item.id for item in whole] == sorted(names, key=lambda name: (-scores[name], name))
    cut = [item.id for item in leg(retrieval, 5).candidates]
    assert cut == [item.id for item in whole[:5]]
