"""The embedded node is a real OpenSearch that keeps its data and never outlives its starter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from opensearchpy import OpenSearch

from app.config import Settings, load_settings
from app.dev.guard import USER
from app.dev.node import FAISS_ATTRIBUTE, start_cluster
from app.errors import ProvisioningError
from app.provision.opensearch import find_home

REPOSITORY = Path(__file__).resolve().parents[2]
INDEX = "embedded-node-test"
PIPELINE = "embedded-node-test"


def client(url: str, secret: str | None = None) -> OpenSearch:
    return OpenSearch(url, timeout=60, http_auth=None if secret is None else (USER, secret))


def gone(pids: list[int]) -> bool:
    """Wait until no such process is left (a zombie is gone; whoever reaps orphans may take a moment)."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        left = []
        for pid in pids:
            try:
                if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                    left.append(pid)
            except psutil.NoSuchProcess:
                continue
        if not left:
            return True
        time.sleep(0.1)
    return False


def fill(store: OpenSearch, *, shards: int = 1, replicas: int = 0) -> None:
    store.indices.create(
        index=INDEX,
        body={
            "settings": {
                "index.knn": True,
                "index.knn.advanced.approximate_threshold": -1,
                "index.number_of_shards": shards,
                "index.number_of_replicas": replicas,
            },
            "mappings": {
                "properties": {
                    "text": {"type": "text", "analyzer": "english"},
                    "embedding": {
                        "type": "knn_vector",
                        "dimension": 2,
                        "method": {"name": "hnsw", "engine": "faiss", "space_type": "innerproduct"},
                    },
                }
            },
        },
    )
    for number, (text, vector) in enumerate(
        [("turbines blown by wind", [1, 0]), ("a ship at sea", [0, 1]), ("wind over the sea", [0.6, 0.8])]
    ):
        store.index(index=INDEX, id=str(number), body={"text": text, "embedding": vector}, refresh=True)
    store.transport.perform_request(
        "PUT",
        f"/_search/pipeline/{PIPELINE}",
        body={
            "phase_results_processors": [
                {
                    "normalization-processor": {
                        "normalization": {"technique": "min_max"},
                        "combination": {"technique": "arithmetic_mean", "parameters": {"weights": [0.5, 0.5]}},
                    }
                }
            ]
        },
    )


def hybrid(store: OpenSearch) -> dict[str, float]:
    answer = store.search(
        index=INDEX,
        body={
            "query": {
                "hybrid": {
                    "queries": [
                        {"match": {"text": "turbine winds"}},
                        {"knn": {"embedding": {"vector": [1, 0], "k": 3}}},
                    ]
                }
            }
        },
        params={"search_pipeline": PIPELINE},
    )
    return {hit["_id"]: hit["_score"] for hit in answer["hits"]["hits"]}


def test_searches_with_hybrid_and_keeps_data_over_a_restart(node_settings: Settings, server_folder: Path) -> None:
    said: list[str] = []
    with start_cluster(node_settings.machine, data_dir=server_folder, on_progress=said.append) as cluster:
        with client(cluster.url) as store:
            assert store.info()["version"]["number"] == cluster.version
            fill(store)
            before = hybrid(store)
            store.snapshot.create_repository(
                repository="kept", body={"type": "fs", "settings": {"location": str(server_folder / "snapshots" / "r")}}
            )
            snapshot = store.snapshot.create(repository="kept", snapshot="one", params={"wait_for_completion": "true"})
        pids = list(cluster.pids)
    # rank 1 in both legs, so 1 after min_max; rank last in both is min_max's floor of .001
    assert before["0"] == pytest.approx(1.0)
    assert min(before, key=before.__getitem__) == "1"
    assert snapshot["snapshot"]["state"] == "SUCCESS"
    assert any("green" in line for line in said)
    assert gone(pids)

    with start_cluster(node_settings.machine, data_dir=server_folder) as cluster, client(cluster.url) as store:
        assert hybrid(store) == before
        assert store.snapshot.get(repository="kept", snapshot="one")["snapshots"][0]["indices"] == [INDEX]


def test_listens_on_loopback_only_not_as_root_and_ends_with_its_supervisor(
    node_settings: Settings, server_folder: Path
) -> None:
    with start_cluster(node_settings.machine, data_dir=server_folder, heap_mb=512) as cluster:
        process = psutil.Process(cluster.pids[0])
        assert process.uids().effective != 0
        listening = {c.laddr.ip for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
        with client(cluster.url) as store:
            attributes = store.nodes.info()["nodes"]
            assert [node["attributes"][FAISS_ATTRIBUTE] for node in attributes.values()] == ["none"]
        assert cluster.native_faiss is False

        with pytest.raises(ProvisioningError, match=f"in use by the running process {os.getpid()}"):
            start_cluster(node_settings.machine, data_dir=server_folder, heap_mb=512)
        with client(cluster.url) as store:  # the refused start did not touch the running one
            assert store.cluster.health()["status"] == "green"

        supervisor = process.parent()
        assert supervisor is not None
        supervisor.kill()
        assert gone([process.pid])
        assert gone([supervisor.pid])
        with pytest.raises(ProvisioningError, match="node 1 ended"):
            cluster.check_alive()

    with pytest.raises(ProvisioningError, match=r"contains a cluster of 1 node\(s\), 3 requested"):
        start_cluster(node_settings.machine, data_dir=server_folder, nodes=3)


@pytest.mark.parametrize(
    "ending",
    [signal.SIGKILL, *(pytest.param(number, marks=pytest.mark.sweep) for number in (signal.SIGTERM, signal.SIGINT))],
)
def test_nothing_is_left_when_the_starter_ends(
    node_settings: Settings, server_folder: Path, ending: signal.Signals
) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-m", "app.dev", "--heap-mb", "512", "--data", str(server_folder)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with starter:
        assert starter.stdout is not None
        ready = json.loads(starter.stdout.readline())
        assert ready["pid"] == starter.pid
        family = [process.pid for process in psutil.Process(starter.pid).children(recursive=True)]
        names = {psutil.Process(pid).name() for pid in family}
        assert {"java", "valkey-server"} <= names
        starter.send_signal(ending)
        starter.wait(60)
    assert gone(family)
    if ending is signal.SIGKILL:  # the folder is free again, and usable
        with start_cluster(node_settings.machine, data_dir=server_folder / "opensearch", heap_mb=512) as cluster:
            cluster.check_alive()


def test_a_node_that_dies_at_the_start_is_reported_with_its_log(node_settings: Settings, server_folder: Path) -> None:
    folder = server_folder / "node-1" / "data" / "nodes"
    folder.parent.mkdir(parents=True)
    folder.write_text("not a folder")
    with pytest.raises(ProvisioningError, match=r"(?s)node 1 ended with exit code 1.*node-1/data/nodes"):
        start_cluster(node_settings.machine, data_dir=server_folder, heap_mb=512)


def test_three_nodes_are_one_cluster_and_survive_a_restart(node_settings: Settings, server_folder: Path) -> None:
    secret = "s" * 32
    with start_cluster(node_settings.machine, data_dir=server_folder, nodes=3, secret=secret) as cluster:
        assert len(set(cluster.urls)) == 3
        with client(cluster.url, secret) as store:
            fill(store, shards=3, replicas=1)
            store.cluster.health(wait_for_status="green")
            before = hybrid(store)
            members = store.cat.nodes(params={"format": "json", "h": "name,heap.max"})
            holders = {shard["node"] for shard in store.cat.shards(index=INDEX, params={"format": "json"})}
        assert sorted(member["name"] for member in members) == ["braid-1", "braid-2", "braid-3"]
        assert len(holders) == 3
        for url in cluster.urls:
            with client(url, secret) as store:
                assert store.count(index=INDEX)["count"] == 3
    with (
        start_cluster(node_settings.machine, data_dir=server_folder, nodes=3, secret=secret) as cluster,
        client(cluster.url, secret) as store,
    ):
        store.cluster.health(wait_for_status="green")
        assert hybrid(store).keys() == before.keys()


def test_a_distribution_takes_the_assembly_s_place(node_settings: Settings, server_folder: Path) -> None:
    assembled = find_home(node_settings.machine)
    (server_folder / "distribution").symlink_to(assembled.path)
    given = load_settings(opensearch_home=server_folder / "distribution", cache_dir=server_folder / "cache")
    with (
        start_cluster(given.machine, data_dir=server_folder / "data", heap_mb=512) as cluster,
        client(cluster.url) as store,
    ):
        assert store.info()["version"]["number"] == "2.19.1"
    # nothing was assembled; the archive of classes makes the next start faster
    assert [file.suffix for file in (server_folder / "cache" / "opensearch").iterdir()] == [".jsa"]
    with start_cluster(given.machine, data_dir=server_folder / "data", heap_mb=512) as cluster:
        mapped = {Path(m.path).suffix for m in psutil.Process(cluster.pids[0]).memory_maps() if "/cache/" in m.path}
    assert mapped == {".jsa"}
