"""Finds a Java that OpenSearch 2.19 can run on."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.config import Settings
from app.errors import ProvisioningError

OLDEST, NEWEST = 17, 21
JVM_ROOTS = (Path("/usr/lib/jvm"), Path("/usr/java"), Path("/opt/java"))
_REMEDY = "install a JDK 17 or 21 (Debian: apt-get install openjdk-17-jre-headless), or name one: BRAID_JAVA_HOME=/path"


@dataclass(frozen=True, slots=True)
class Java:
    """A suitable Java: its executable, and its version (``17.0.15``), also as the major number."""

    executable: Path
    version: str
    major: int

    @property
    def home(self) -> Path:
        """The folder that JAVA_HOME would name."""
        return self.executable.parent.parent


def find_java(
    settings: Settings, *, extra: Sequence[Path] = (), roots: Sequence[Path] = JVM_ROOTS, path: str | None = None
) -> Java:
    """The first suitable Java of: BRAID_JAVA_HOME or JAVA_HOME, `extra` homes, the PATH, the folders in `roots`.

    Args:
        settings: `java_home`.
        extra: Java homes to try next, such as the one that a distribution bundles.
        roots: folders whose children are Java homes.
        path: in place of the process's PATH.

    Raises:
        ProvisioningError: none is suitable; says what was found and why each was refused.
    """
    refused = []
    for executable in _candidates(settings, extra, roots, path):
        try:
            return check_java(executable)
        except ProvisioningError as error:
            refused.append(error.detail)
    if not refused:
        raise ProvisioningError(f"no Java was found; {_REMEDY}")
    raise ProvisioningError("no suitable Java was found:\n  " + "\n  ".join(dict.fromkeys(refused)) + f"\n{_REMEDY}")


def check_java(executable: Path) -> Java:
    """Run `executable` and see whether OpenSearch 2.19 can start on it.

    Raises:
        ProvisioningError: it does not run, is too old or too new, or is a runtime without locale data.
    """
    # one call tells the version and the modules
    try:
        answer = subprocess.run(
            [str(executable), "--list-modules"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProvisioningError(f"{executable} does not run: {error}") from error
    version = re.search(r"^java\.base@(\d+)(\S*)", answer.stdout, re.MULTILINE)
    if version is None:
        said = (answer.stderr or answer.stdout).strip().splitlines()[:1]
        raise ProvisioningError(
            f"{executable} is not a Java of version {OLDEST} to {NEWEST}; "
            f"`--list-modules` said: {' '.join(said) or 'nothing'}"
        )
    major = int(version[1])
    shown = f"{executable} is Java {version[1]}{version[2]}"
    if major < OLDEST:
        raise ProvisioningError(f"{shown}; Braid runs OpenSearch 2.19 on Java {OLDEST} to {NEWEST}")
    if major >= 24:
        raise ProvisioningError(
            f"{shown}; Java 24 and later have no security manager, so OpenSearch 2.19 can't start there; "
            f"it needs Java {OLDEST} to {NEWEST}"
        )
    if major > NEWEST:
        raise ProvisioningError(f"{shown}; OpenSearch 2.19 is run on Java {OLDEST} to {NEWEST}")
    if not re.search(r"^jdk\.localedata@", answer.stdout, re.MULTILINE):
        raise ProvisioningError(
            f"{shown}, a stripped runtime without the module jdk.localedata, which OpenSearch's analysis needs"
        )
    return Java(executable, version[1] + version[2], major)


def _candidates(settings: Settings, extra: Sequence[Path], roots: Sequence[Path], path: str | None) -> Iterator[Path]:
    seen = set()

    def fresh(executable: Path) -> bool:
        real = executable.resolve()
        known = real in seen
        seen.add(real)
        return executable.is_file() and not known

    homes = [home for home in (settings.java_home, *extra) if home]
    if settings.java_home and not (settings.java_home / "bin" / "java").is_file():
        raise ProvisioningError(f"BRAID_JAVA_HOME or JAVA_HOME={settings.java_home} has no bin/java; {_REMEDY}")
    found = shutil.which("java", path=path)
    on_path = [Path(found)] if found else []
    in_roots = [home / "bin" / "java" for root in roots if root.is_dir() for home in sorted(root.iterdir())]
    for executable in [*(home / "bin" / "java" for home in homes), *on_path, *in_roots]:
        if fresh(executable):
            yield executable
