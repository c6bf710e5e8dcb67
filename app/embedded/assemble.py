"""The OpenSearch that the embedded node runs: assembled from Maven artifacts, or what OPENSEARCH_HOME names."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from app.assets import asset_folder
from app.config import Settings
from app.embedded import maven
from app.embedded.files import built_aside, exclusive
from app.errors import ProvisioningError

PLUGINS = ("opensearch-knn", "neural-search")
LAYOUT = 1
"""Raised when the code below lays the folder out differently."""
_FAISS = "libopensearchknn_faiss*.so"


@dataclass(frozen=True, slots=True)
class Home:
    """An OpenSearch to run.

    `native` is the folder with the k-NN plugin's FAISS libraries, None where there are none; `java_home` the Java that
    the distribution bundles, if it does.
    """

    path: Path
    version: str
    native: Path | None
    java_home: Path | None = None
    security: bool = False


def find_home(settings: Settings, *, on_progress: maven.Progress | None = None) -> Home:
    """The distribution that OPENSEARCH_HOME names, else our own assembly, made at the first call.

    Raises:
        ProvisioningError: OPENSEARCH_HOME is not a usable OpenSearch 2.x, BRAID_KNN_LIB has no FAISS libraries that
            load, or assembling failed.
    """
    given = settings.opensearch_home
    path = given.absolute() if given else _assembled(settings, on_progress)
    version = _version(path)
    if given:
        _check_distribution(path, version)
    native = settings.knn_lib.absolute() if settings.knn_lib else path / "plugins" / "opensearch-knn" / "lib"
    if settings.knn_lib:
        check_native(native)
    bundled = path / "jdk"
    return Home(
        path,
        version,
        native if any(native.glob(_FAISS)) else None,
        bundled if bundled.is_dir() else None,
        security=(path / "plugins" / "opensearch-security").is_dir(),
    )


def fingerprint() -> str:
    """Twelve hex digits over everything that decides what is assembled: a change of any of it is a new assembly."""
    source = asset_folder("docker/embedded")
    digest = hashlib.sha256(f"{LAYOUT}".encode() + maven.checksums("node").read_bytes())
    for file in sorted((source / "modules").rglob("*")):
        if file.is_file():
            digest.update(f"\0{file.relative_to(source)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def check_native(folder: Path) -> None:
    """Make sure that the FAISS libraries in `folder` load here: the node would end at its first graph if they didn't.

    Raises:
        ProvisioningError: there are none, or the system's loader refuses one.
    """
    libraries = sorted(folder.glob("libopensearchknn_common*.so")) + sorted(folder.glob(_FAISS))
    if not any(folder.glob(_FAISS)):
        raise ProvisioningError(
            f"BRAID_KNN_LIB={folder} holds no {_FAISS}: name the folder plugins/opensearch-knn/lib of an official "
            "OpenSearch 2.19.1 distribution, or unset it (then vectors are searched exactly, without a FAISS graph)"
        )
    # in a process of its own, which a broken library may end
    load = "import ctypes, sys\nfor name in sys.argv[1:]: ctypes.CDLL(name, ctypes.RTLD_GLOBAL)"
    answer = subprocess.run(
        [sys.executable, "-I", "-S", "-c", load, *map(str, libraries)],
        capture_output=True,
        text=True,
        check=False,
        env={"LD_LIBRARY_PATH": str(folder)},
    )
    if answer.returncode != 0:
        said = " ".join(answer.stderr.strip().splitlines()[-1:]) or f"exit code {answer.returncode}"
        raise ProvisioningError(
            f"the FAISS libraries in BRAID_KNN_LIB={folder} don't load here: {said}; install what they need (libgomp, "
            "a BLAS), take those of this machine's architecture, or unset BRAID_KNN_LIB"
        )


def _assembled(settings: Settings, on_progress: maven.Progress | None) -> Path:
    root = settings.cache_dir.absolute() / "opensearch"
    folder = root / fingerprint()
    if folder.is_dir():
        return folder
    with exclusive(root / ".lock"):
        if folder.is_dir():  # another process was faster
            return folder
        if on_progress:
            on_progress("assembling OpenSearch (once)")
        with built_aside(folder) as fresh:
            maven.resolve("node", fresh, on_progress)
            for module in sorted((asset_folder("docker/embedded") / "modules").iterdir()):
                shutil.copytree(module, fresh / "modules" / module.name, dirs_exist_ok=True)
            for name in ("bin", "extensions"):  # OpenSearch makes them if they are missing, and may not write here
                (fresh / name).mkdir()
    return folder


def _version(home: Path) -> str:
    for jar in home.glob("lib/opensearch-*.jar"):
        if match := re.fullmatch(r"opensearch-(\d+\.\d+\.\d+)\.jar", jar.name):
            return match[1]
    raise ProvisioningError(
        f"{home} holds no OpenSearch (no lib/opensearch-<version>.jar): set OPENSEARCH_HOME to an unpacked 2.19 "
        "distribution, or unset it and Braid assembles one"
    )


def _check_distribution(home: Path, version: str) -> None:
    if not version.startswith("2."):
        raise ProvisioningError(
            f"OPENSEARCH_HOME={home} is OpenSearch {version}; Braid can start 2.x: start {version} yourself and name "
            "it with BRAID_OPENSEARCH_URL"
        )
    present = set()
    for descriptor in home.glob("plugins/*/plugin-descriptor.properties"):
        present.update(re.findall(r"^name=(?:opensearch-)?(\S+)", descriptor.read_text("utf-8"), re.MULTILINE))
    missing = [name for name in PLUGINS if name.removeprefix("opensearch-") not in present]
    if missing:
        raise ProvisioningError(
            f"OPENSEARCH_HOME={home} lacks the plugins {', '.join(missing)}: take the full distribution, not the "
            "minimal one, or install them with its bin/opensearch-plugin"
        )
