"""Everything in this folder talks to real servers, so it carries the marker `live`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.leak.world import World, open_world


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.live)


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
