"""A real node without neural-search: named with the remedy before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from app.config import Settings, load_settings
from app.dev.node import start_cluster
from app.errors import CapabilityError
from app.provision.opensearch import find_home
from app.store import templates
from app.store.capabilities import probe
from app.store.client import Cluster
from app.store.rendering import render


def test_a_node_without_neural_search_is_named_and_nothing_is_written(
    node_settings: Settings, server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = find_home(node_settings.machine).path
    home = server_folder / "distribution"
    home.mkdir()
    for part in whole.iterdir():
        if part.name not in {"modules", "plugins"}:
            (home / part.name).symlink_to(part)
    # copied: the security manager of 2.x lets the node read no targets of links
    shutil.copytree(whole / "modules", home / "modules")
    shutil.copytree(whole / "plugins" / "opensearch-knn", home / "plugins" / "opensearch-knn")
    monkeypatch.setattr("app.provision.opensearch.PLUGINS", ("opensearch-knn",))  # or it would not be started
    given = load_settings(opensearch_home=home)
    with start_cluster(given.machine, data_dir=server_folder / "data", heap_mb=512) as node:
        settings = load_settings(opensearch_url=node.url, opensearch_timeout_s=60)
        cluster = Cluster(settings.opensearch)
        found = probe(cluster)
        rendered = render(settings, "faiss-exact", 384, version=found.version)
        with pytest.raises(
            CapabilityError, match=r"lacks the plugin opensearch-neural-search on the node braid-1: install"
        ):
            templates.apply(cluster, found, rendered)
        drifts, _ = templates.compare(cluster, rendered)
        assert {drift.name for drift in drifts if drift.found == "(missing)"} >= {
            item.name for item in rendered.resources
        }
        cluster.close()
