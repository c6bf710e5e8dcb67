"""The embedded node's OpenSearch: assembled from Maven artifacts, or the one in OPENSEARCH_HOME."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from string import Template

from app.assets import asset_folder
from app.config.section import DEFAULT_RELEASE, OpenSearchRelease
from app.config.service import MachineSettings
from app.errors import ProvisioningError
from app.provision import maven
from app.provision.folders import build_aside, exclusive
from app.provision.java import SUITABLE
from app.provision.native_faiss import check_native, has_faiss

PLUGINS = ("opensearch-knn", "neural-search")
BREAKS = "breaks"
"""Folder of the assembly with ICU's word breaks, for a Java that lacks those of Thai."""
LAYOUT = 2
"""Incremented when the code below changes the folder's layout."""


@dataclass(frozen=True, slots=True)
class Home:
    """An OpenSearch distribution.

    `native` is the folder with the k-NN plugin's FAISS libraries, or None; `java_home` is the Java bundled with the
    distribution, if any.
    """

    path: Path
    version: str
    native: Path | None
    java_home: Path | None = None
    security: bool = False

    @property
    def major(self) -> int:
        """The major number of `version`."""
        return int(self.version.partition(".")[0])


def find_home(
    machine: MachineSettings,
    *,
    release: OpenSearchRelease = DEFAULT_RELEASE,
    on_progress: maven.Progress | None = None,
) -> Home:
    """Return the distribution in OPENSEARCH_HOME, or else our own assembly, created at the first call.

    Args:
        release: what is assembled if `machine` names none.

    Raises:
        ProvisioningError: OPENSEARCH_HOME is not a usable OpenSearch 2.x or 3.x, or not of the release that `machine`
            names, BRAID_KNN_LIB lacks a FAISS library that the node will ask for, or the assembly failed.
    """
    given = machine.opensearch_home
    path = given.absolute() if given else _assemble(machine, machine.opensearch_version or release, on_progress)
    version = _version(path)
    if given:
        _check_distribution(path, version, machine.opensearch_version)
    native = machine.knn_lib.absolute() if machine.knn_lib else path / "plugins" / "opensearch-knn" / "lib"
    if machine.knn_lib:
        check_native(native, path / "plugins" / "opensearch-knn")
    bundled = path / "jdk"
    return Home(
        path,
        version,
        native if has_faiss(native) else None,
        bundled if bundled.is_dir() else None,
        security=(path / "plugins" / "opensearch-security").is_dir(),
    )


def fingerprint(release: OpenSearchRelease) -> str:
    """Return twelve hex digits over everything that determines the assembly: any change means a new assembly."""
    source = asset_folder("docker/embedded")
    digest = hashlib.sha256(f"{LAYOUT}".encode() + maven.checksums(f"node-{release}").read_bytes())
    for file in sorted((source / "modules").rglob("*")):
        if file.is_file():
            digest.update(f"\0{file.relative_to(source)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _assemble(machine: MachineSettings, release: OpenSearchRelease, on_progress: maven.Progress | None) -> Path:
    root = machine.cache_dir.absolute() / "opensearch"
    folder = root / fingerprint(release)
    if folder.is_dir():
        return folder
    with exclusive(root / ".lock"):
        if folder.is_dir():  # another process was faster
            return folder
        if on_progress:
            on_progress(f"assembling OpenSearch {release} (once)")
        with build_aside(folder) as fresh:
            maven.resolve(f"node-{release}", fresh, on_progress, base="node")
            _describe_modules(fresh)
            # OpenSearch would create them if they were missing, but may not write here
            for name in ("bin", "extensions"):
                (fresh / name).mkdir()
    return folder


def _describe_modules(home: Path) -> None:
    """Add descriptor and policy to each module that was resolved: the published jars lack them."""
    version = _version(home)
    kind = "" if version.startswith("2.") else "Module"  # 3.x inserted it into the names of the modules' classes
    for module in sorted((home / "modules").iterdir()):
        shutil.copytree(asset_folder("docker/embedded") / "modules" / module.name, module, dirs_exist_ok=True)
        descriptor = module / "plugin-descriptor.properties"
        descriptor.write_text(Template(descriptor.read_text("utf-8")).substitute(version=version, kind=kind), "utf-8")


def _version(home: Path) -> str:
    for jar in home.glob("lib/opensearch-*.jar"):
        if match := re.fullmatch(r"opensearch-(\d+\.\d+\.\d+)\.jar", jar.name):
            return match[1]
    raise ProvisioningError(
        f"{home} contains no OpenSearch (no lib/opensearch-<version>.jar): set OPENSEARCH_HOME to an unpacked "
        "distribution of 2.19 or 3.x, or unset it and Braid assembles one"
    )


def _check_distribution(home: Path, version: str, release: OpenSearchRelease | None) -> None:
    if int(version.partition(".")[0]) not in SUITABLE:
        raise ProvisioningError(
            f"OPENSEARCH_HOME={home} is OpenSearch {version}; Braid can start 2.x and 3.x: start {version} yourself "
            "and set BRAID_OPENSEARCH_URL"
        )
    if release is not None and not version.startswith(f"{release}."):
        raise ProvisioningError(
            f"OPENSEARCH_HOME={home} is OpenSearch {version}, but {release} is requested (--opensearch or "
            "BRAID_OPENSEARCH_VERSION): unset one of them"
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
