"""Everything in this folder talks to real servers, so it carries the marker `live`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import JAVA_OPTIONS
from tests.live.leak.world import World, open_world

LONG = [
    "test_part_failures",
    "test_evaluate_and_tune",
    "test_fusion_exactness",
    "test_draining",
    "test_embedded_node",
    "test_bounded_writes",
    "test_guard",
    "test_ingest",
    "test_upgrade",
    "test_embedded_artifacts",
    "test_hostile_files",
    "test_access_keys",
]
"""Modules that take more than a minute, the longest first: one that begins last is waited for by idle processes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.live)


@pytest.fixture(scope="session", autouse=True)
def _nodes_start_quickly() -> Iterator[None]:
    """`load_settings` of a test that starts a node its own way has the options of `node_settings`, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAID_JAVA_OPTIONS", JAVA_OPTIONS)
        yield


@pytest.fixture(scope="session", autouse=True)
def _model_is_there(model_folder: Path) -> None:
    """Fetch the embedding model once: every service that a test starts reads it from the cache."""


@pytest.fixture(scope="module")
def world(addresses: Any, request: pytest.FixtureRequest) -> Iterator[World]:
    """Tenants, groups and callers on the shared node, for tests of who sees what."""
    if addresses.test_opensearch_url and addresses.test_redis_url:
        urls = addresses.test_opensearch_url, addresses.test_redis_url
    else:
        up = request.getfixturevalue("braid_up")
        urls = up["opensearch_url"], up["redis_url"]
    with open_world(*urls) as found:
        yield found
