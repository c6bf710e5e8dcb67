"""Indexes that Braid did not make: other field names, several shards, no template, no pipeline."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2
import numpy as np
import orjson

DIMENSION = 16
FUSING = {
    "phase_results_processors": [
        {
            "normalization-processor": {
                "normalization": {"technique": "min_max"},
                "combination": {"technique": "arithmetic_mean", "parameters": {"weights": [0.5, 0.5]}},
            }
        }
    ]
}
Row = dict[str, Any]


def rows(count: int, *, seed: int = 1, dimension: int = DIMENSION) -> list[Row]:
    """Documents of random words, with random unit vectors."""
    draw = random.Random(seed)
    vectors = np.random.default_rng(seed).normal(size=(count, dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    known = ["".join(draw.choices("bdklmnrst", k=2)) + draw.choice("aeiou") + "ing" for _ in range(300)]
    return [
        {"story": " ".join(draw.choices(known, k=30)), "shelf": f"s{number % 12}", "meaning": vector.tolist()}
        for number, vector in enumerate(vectors)
    ]


def vector_field(engine: str = "lucene", space: str = "innerproduct", **method: Any) -> Row:
    """A mapping of `meaning`."""
    return {
        "type": "knn_vector",
        "dimension": DIMENSION,
        "method": {"name": "hnsw", "engine": engine, "space_type": space, **method},
    }


@dataclass(frozen=True)
class Node:
    """A node on which tests make indexes."""

    client: httpx2.Client

    def send(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.client.request(method, path, json=body)
        assert answer.status_code < 300, answer.text[:500]
        return answer.json()

    @contextmanager
    def index(
        self,
        documents: Sequence[Row],
        *,
        properties: Mapping[str, Any] | None = None,
        shards: int = 3,
        settings: Mapping[str, Any] | None = None,
        mapping: Mapping[str, Any] | None = None,
    ) -> Iterator[str]:
        """An index of `documents`, whose ids are d0, d1, ...; removed in the end."""
        name = f"foreign-{uuid4().hex[:10]}"
        fields = {
            "story": {"type": "text"},
            "shelf": {"type": "keyword"},
            "meaning": vector_field(),
            **(properties or {}),
        }
        fields = {key: value for key, value in fields.items() if value}
        whole = {"index.knn": True, "number_of_shards": shards, "number_of_replicas": 0, **(settings or {})}
        self.send("PUT", f"/{name}", {"settings": whole, "mappings": {"properties": fields, **(mapping or {})}})
        try:
            self.put(name, documents)
            yield name
        finally:
            self.send("DELETE", f"/{name}")

    def put(self, name: str, documents: Sequence[Row]) -> None:
        """Write documents, and let searches see them."""
        for begin in range(0, len(documents), 500):
            part = enumerate(documents[begin : begin + 500], begin)
            lines = [line for number, row in part for line in ({"index": {"_id": f"d{number}"}}, row)]
            body = b"".join(orjson.dumps(line) + b"\n" for line in lines)
            answer = self.client.post(
                f"/{name}/_bulk?pipeline=_none", content=body, headers={"content-type": "application/x-ndjson"}
            ).json()
            assert not answer["errors"], str(answer)[:500]
        self.send("POST", f"/{name}/_refresh")

    @contextmanager
    def pipeline(self, body: Row) -> Iterator[str]:
        """A search pipeline."""
        name = f"foreign-{uuid4().hex[:10]}"
        self.send("PUT", f"/_search/pipeline/{name}", body)
        try:
            yield name
        finally:
            self.send("DELETE", f"/_search/pipeline/{name}")


@contextmanager
def on_node(url: str) -> Iterator[Node]:
    """The node at `url`."""
    with httpx2.Client(base_url=url, timeout=60) as client:
        yield Node(client)
