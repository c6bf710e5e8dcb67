"""Guard of an OpenSearch: checks password, `Host` and `Origin`, without changing its files and without a second
process.

A guarded node runs a folder of links to the given OpenSearch, except for its modules: these are copied, and the network
module gets an additional class, compiled here from docker/embedded/guard/Guard.java. OpenSearch's own settings can't
reject callers, and its security plugin needs certificates and is not published for every version.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

from app.assets import asset_folder
from app.config.service import MachineSettings
from app.errors import ProvisioningError
from app.provision import maven
from app.provision.folders import build_aside, exclusive
from app.provision.java import Java
from app.provision.opensearch import Home

USER = "braid"
"""The only user that a guarded node knows."""
CREDENTIALS_FILE = "guard"
"""Name of the file in the node's config folder with ``user:secret``."""
LAYOUT = 1
"""Incremented when the code below changes the folder's layout."""
_MODULE = Path("modules") / "transport-netty4"
_DESCRIPTOR = "plugin-descriptor.properties"
_CLASS = re.compile(r"^classname=org\.opensearch\.transport\.(\w+)$", re.MULTILINE)
_COMPILE_S = 120


def add_guard(home: Home, java: Java, machine: MachineSettings, *, on_progress: maven.Progress | None = None) -> Home:
    """Return `home` with the guard, created at the first call; `home` itself is not changed.

    Args:
        home: an OpenSearch 2.x or 3.x.
        java: runs the compiler; a runtime without one suffices (Maven fetches Eclipse's).
        machine: `cache_dir`.

    Raises:
        ProvisioningError: the compiler can't be fetched or does not run, or `home` has no known network module.
    """
    source = (asset_folder("docker/embedded") / "guard" / "Guard.java").read_text("utf-8")
    key = f"{LAYOUT}\0{home.path}\0{home.version}\0{source}"
    root = machine.cache_dir.absolute() / "opensearch"
    folder = root / f"guarded-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        with exclusive(root / ".lock"):
            if not folder.is_dir():  # another process was faster
                with build_aside(folder) as fresh:
                    _create_layout(home.path, java, source, fresh, on_progress)
    return replace(home, path=folder)


def _create_layout(home: Path, java: Java, source: str, fresh: Path, on_progress: maven.Progress | None) -> None:
    module = home / _MODULE
    try:
        descriptor = (module / _DESCRIPTOR).read_text("utf-8")
    except FileNotFoundError as error:
        raise ProvisioningError(
            f"{home} has no {_MODULE}: it is not a complete OpenSearch: unset OPENSEARCH_HOME"
        ) from error
    named = _CLASS.search(descriptor)
    if named is None:
        raise ProvisioningError(f"{module / _DESCRIPTOR} names no class that Braid knows: unset OPENSEARCH_HOME")
    for part in home.iterdir():
        if part.name != "modules":
            (fresh / part.name).symlink_to(part)
    # copied: the security manager lets the node read the folder itself, not the targets of links in it
    shutil.copytree(home / "modules", fresh / "modules")
    own = fresh / _MODULE
    (own / _DESCRIPTOR).write_text(_CLASS.sub("classname=braid.Guard", descriptor), encoding="utf-8")
    aside = fresh.parent / "compiling"
    aside.mkdir()
    jars = [*sorted((home / "lib").glob("*.jar")), *sorted(module.glob("*.jar"))]
    _compile(java, source.replace("NETTY_PLUGIN", named[1]), jars, aside, on_progress)
    with zipfile.ZipFile(own / "braid-guard.jar", "w") as jar:
        for compiled in sorted((aside / "classes").rglob("*.class")):
            jar.write(compiled, compiled.relative_to(aside / "classes"))


def _compile(java: Java, source: str, jars: list[Path], aside: Path, on_progress: maven.Progress | None) -> None:
    tool = aside / "compiler"
    tool.mkdir()
    maven.resolve("compiler", tool, on_progress)
    (aside / "Guard.java").write_text(source, encoding="utf-8")
    command = [str(java.executable), "-jar", str(tool / "ecj.jar"), "-source", "11", "-target", "11", "-proc:none"]
    command += ["-cp", ":".join(map(str, jars)), "-d", str(aside / "classes"), str(aside / "Guard.java")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_S, check=False)
    if done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[:20])
        raise ProvisioningError(
            f"the guard of the embedded node does not compile against this OpenSearch (exit code {done.returncode}); "
            f"name one that Braid knows with OPENSEARCH_HOME, or your own cluster with BRAID_OPENSEARCH_URL:\n{said}"
        )
