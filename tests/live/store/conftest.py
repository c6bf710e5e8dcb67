"""A node of the store's own: these tests take templates, aliases and indexes away, which others need in place."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.config import Settings, load_settings
from app.dev.node import EmbeddedCluster, start_cluster
from app.passage import Passage, SourceType, passage_id
from app.store import templates
from app.store.capabilities import Capabilities, probe
from app.store.client import Cluster, StoreRequestError
from app.store.rendering import RenderedResources, render

DIMENSION = 384


@pytest.fixture(scope="session")
def store_node(node_settings: Settings) -> Iterator[EmbeddedCluster]:
    with tempfile.TemporaryDirectory(prefix="braid-test-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with start_cluster(node_settings.machine, data_dir=Path(folder), heap_mb=512) as node:
            yield node
            node.check_alive()  # a test that killed the node must not pass unseen


@pytest.fixture(scope="session")
def store_settings(store_node: EmbeddedCluster) -> Settings:
    return load_settings(opensearch_url=store_node.url, opensearch_timeout_s=60)


@pytest.fixture(scope="session")
def _connected(store_settings: Settings) -> Iterator[Cluster]:
    cluster = Cluster(store_settings.opensearch)
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def capabilities(_connected: Cluster) -> Capabilities:
    return probe(_connected)


@pytest.fixture(scope="session")
def rendered(store_settings: Settings, capabilities: Capabilities) -> RenderedResources:
    return render(store_settings, "faiss-exact", DIMENSION, version=capabilities.version)


@pytest.fixture
def cluster(_connected: Cluster) -> Cluster:
    """The node with nothing of Braid on it."""
    _connected.request("DELETE", "/braid-*", params={"expand_wildcards": "all"})
    for path in ("/_index_template/*", "/_component_template/braid-*", "/_ingest/pipeline/*", "/_search/pipeline/*"):
        try:
            _connected.request("DELETE", path)
        except StoreRequestError as error:
            assert error.status_code == 404, error  # nothing there  # noqa: PT017
    return _connected


@pytest.fixture
def store(cluster: Cluster, capabilities: Capabilities, rendered: RenderedResources) -> Cluster:
    """The node with the templates applied and an empty first index."""
    templates.apply(cluster, capabilities, rendered)
    return cluster


@pytest.fixture(scope="session")
def make_passage() -> Callable[..., Passage]:
    """Makes passages: `make_passage("doc", 3, version="v2", text=...)`; vectors are random and of length 1."""
    random = np.random.default_rng(7)

    def make(document_id: str = "doc", position: int = 0, *, version: str = "v1", **fields: Any) -> Passage:
        vector = random.standard_normal(DIMENSION).astype(np.float32)
        given: dict[str, Any] = {
            "source_id": "tests",
            "source_type": SourceType.TEXT,
            "uri": f"file:{document_id}",
            "title": "A title",
            "section_heading": "",
            "text": f"passage {position} of {document_id}",
            "page": None,
            "token_count": 5,
            "timestamp": "2024-05-06T00:00:00+00:00",
            "topic_tags": ("b", "a"),
            "tenant": "default",
            "acl": ("public",),
            "embedding_model": "all-MiniLM-L6-v2",
            "embedding": tuple(float(x) for x in vector / np.linalg.norm(vector)),
            **fields,
        }
        identity = passage_id(given["tenant"], document_id, version, position)
        return Passage(id=identity, document_id=document_id, position=position, content_hash=version, **given)

    return make
