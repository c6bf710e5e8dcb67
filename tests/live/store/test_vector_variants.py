"""Every vector variant's template, filled and searched: the graphs of FAISS where its native libraries are at hand.

They lie in ``../shared/native``, beside the project, one folder a version of k-NN.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.assets import asset_folder
from app.config import Settings, load_settings
from app.dev.node import start_cluster
from app.passage import Passage
from app.store import templates
from app.store.bulk import bulk_index
from app.store.capabilities import probe
from app.store.client import READ_ALIAS, Cluster
from app.store.documents import refresh
from app.store.queries import vector_leg
from app.store.rendering import FIRST_INDEX, IVFPQ_MODEL, render

pytestmark = pytest.mark.graphs

NATIVE = asset_folder("mappings").parent.parent / "shared" / "native"
DIMENSION, COUNT, QUERIES, K = 384, 1500, 40, 10
LEAST_RECALL = {
    "faiss-exact": 1.0,
    "lucene-hnsw": 0.9,
    "faiss-hnsw": 0.9,
    "faiss-hnsw-fp16": 0.9,
    "faiss-ivfpq": 0.3,
    "faiss-on-disk": 0.8,
}
"""Share of the ten nearest that are found: product quantisation to 24 bytes loses most, and nothing is rescored."""
WITH_FEW = {f"index.knn.advanced.{name}": 0 for name in ("approximate_threshold", "filtered_exact_search_threshold")}
"""By default, segments of fewer than 15,000 passages get no graph, and few passages are compared without it."""
GRAPHS = set(LEAST_RECALL) - {"faiss-exact", "lucene-hnsw"}


@dataclass(frozen=True)
class Node:
    """A node; `libraries` is the folder of its native ones, if any, `data` that of its files."""

    cluster: Cluster
    settings: Settings
    libraries: Path
    data: Path


@pytest.fixture(scope="module", params=[("2.19", "2.19.1.0"), ("3.6", "3.6.0.0")], ids=lambda param: param[0])
def node(request: pytest.FixtureRequest, node_settings: Settings) -> Iterator[Node]:
    version, native = request.param
    folder = NATIVE / native
    machine = load_settings(opensearch_version=version, knn_lib=folder if folder.is_dir() else None).machine
    with tempfile.TemporaryDirectory(prefix="braid-test-", ignore_cleanup_errors=True) as data:
        Path(data).chmod(0o755)
        with start_cluster(machine, data_dir=Path(data), heap_mb=512) as embedded:
            settings = load_settings(opensearch_url=embedded.url, opensearch_timeout_s=120)
            cluster = Cluster(settings.opensearch)
            yield Node(cluster, settings, folder, Path(data))
            cluster.close()
            embedded.check_alive()  # a graph that could not be built ends the node


@pytest.fixture(scope="module")
def vectors() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Unit vectors with few degrees of freedom, as those of texts have, shape (COUNT + QUERIES, DIMENSION)."""
    random = np.random.default_rng(7)
    raw = random.standard_normal((COUNT + QUERIES, 16)) @ random.standard_normal((16, DIMENSION))
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(params=list(LEAST_RECALL))
def variant(request: pytest.FixtureRequest, node: Node) -> Iterator[str]:
    if request.param in GRAPHS and not node.libraries.is_dir():
        pytest.skip(f"the native libraries are not at hand: {node.libraries}")
    yield request.param
    node.cluster.request("DELETE", "/braid-*", params={"expand_wildcards": "all"})


def test_a_variant_s_template_is_applied_filled_and_searched(
    node: Node,
    variant: str,
    vectors: np.ndarray[Any, np.dtype[np.float32]],
    make_passage: Callable[..., Passage],
) -> None:
    if variant == "faiss-ivfpq":
        train(node.cluster, vectors[:COUNT])
    capabilities = probe(node.cluster)
    rendered = render(node.settings, variant, DIMENSION, version=capabilities.version)
    templates.apply(node.cluster, capabilities, rendered)
    if variant in GRAPHS:
        node.cluster.request("PUT", f"/{FIRST_INDEX}/_settings", body=WITH_FEW)
    assert templates.compare(node.cluster, rendered)[0] == []
    first = make_passage("doc", 0)
    passages = [
        replace(first, id=f"p{n:04}", position=n, embedding=tuple(vector), acl=("even" if n % 2 == 0 else "odd",))
        for n, vector in enumerate(vectors[:COUNT].tolist())
    ]
    assert bulk_index(node.cluster, passages).indexed == COUNT
    node.cluster.request("POST", f"/{FIRST_INDEX}/_flush")
    refresh(node.cluster)

    everything = np.arange(COUNT)
    assert recall(node.cluster, vectors, everything, []) >= LEAST_RECALL[variant]
    # filtered as every search of the service is
    assert recall(node.cluster, vectors, everything[::2], [{"terms": {"acl": ["even"]}}]) >= LEAST_RECALL[variant]
    assert any(node.data.rglob("*.faiss*")) == (variant in GRAPHS)
    in_files = variant == "faiss-on-disk" and capabilities.version >= (3, 0, 0)  # searched where they lie
    assert (graph_memory_kb(node.cluster) > 0) == (variant in GRAPHS and not in_files)


def recall(
    cluster: Cluster, vectors: np.ndarray[Any, np.dtype[np.float32]], among: Any, filters: Sequence[dict[str, Any]]
) -> float:
    """Mean share of the K nearest passages of `among` that the vector leg finds."""
    found_shares = []
    for query in vectors[COUNT:]:
        nearest = among[np.argsort(-(vectors[among] @ query))[:K]]
        body = {"query": vector_leg(query.tolist(), K, filters), "size": K, "_source": False}
        hits = cluster.request("POST", f"/{READ_ALIAS}/_search", body=body)["hits"]["hits"]
        assert len(hits) == K
        found_shares.append(len({hit["_id"] for hit in hits} & {f"p{n:04}" for n in nearest}) / K)
    return float(np.mean(found_shares))


def graph_memory_kb(cluster: Cluster) -> int:
    nodes = cluster.request("GET", "/_plugins/_knn/stats/graph_memory_usage")["nodes"]
    return sum(int(item["graph_memory_usage"]) for item in nodes.values())


def train(cluster: Cluster, vectors: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    """Train the model of `faiss-ivfpq` as docs/store.md says; 4 bits a code, since 8 take minutes."""
    mapping = {"properties": {"embedding": {"type": "knn_vector", "dimension": DIMENSION}}}
    cluster.request("PUT", "/braid-training", body={"mappings": mapping})
    lines = b"".join(b'{"index":{}}\n{"embedding":%s}\n' % str(vector).encode() for vector in vectors.tolist())
    assert not cluster.request("POST", "/braid-training/_bulk", params={"refresh": "true"}, body=lines)["errors"]
    encoder = {"name": "pq", "parameters": {"m": 48, "code_size": 4}}
    method = {"name": "ivf", "engine": "faiss", "parameters": {"nlist": 16, "nprobes": 8, "encoder": encoder}}
    body = {
        "training_index": "braid-training",
        "training_field": "embedding",
        "dimension": DIMENSION,
        "space_type": "innerproduct",
        "method": method,
    }
    model = f"/_plugins/_knn/models/{IVFPQ_MODEL}"
    cluster.request("POST", f"{model}/_train", body=body)
    while (state := cluster.request("GET", model)["state"]) == "training":
        time.sleep(0.2)
    assert state == "created"
