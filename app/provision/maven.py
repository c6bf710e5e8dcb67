"""Maven runs on docker/embedded/pom.xml, which resolve everything that the embedded parts consist of."""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Callable
from pathlib import Path

from app.assets import asset_folder
from app.errors import ProvisioningError

Progress = Callable[[str], None]

_TRANSFER = re.compile(r"^\[INFO\] (Downloading|Downloaded) from \S+: \S*/([^/\s]+\.(?:jar|zip))(?: \(([^)]*) at)?")
_NETWORK = (
    "Could not transfer",
    "Connection refused",
    "Unknown host",
    "timed out",
    "offline mode",
    "Network is unreachable",
)


def pom() -> Path:
    """Return the pom.xml that lists every artifact and its version."""
    return asset_folder("docker/embedded") / "pom.xml"


def checksums(profile: str) -> Path:
    """Return the file with the SHA-256 of everything that `profile` resolves, in the format of `sha256sum`."""
    return asset_folder("docker/embedded") / "checksums" / f"{profile}.sha256"


def resolve(profile: str, out: Path, on_progress: Progress | None = None, *, base: str | None = None) -> None:
    """Resolve `profile` of the pom.xml into the empty folder `out`, reporting each download.

    Args:
        base: another profile, which `profile` completes.

    Raises:
        ProvisioningError: there is no `mvn`, it failed (the message has its output), or a checksum differs.
    """
    maven = shutil.which("mvn")
    if maven is None:
        raise ProvisioningError(
            "Maven (`mvn`) is not on the PATH; it resolves the embedded OpenSearch and the models. Install it "
            "(Debian: apt-get install maven), or use a cluster and a model of your own: BRAID_OPENSEARCH_URL and "
            "BRAID_EMBEDDING_PATH"
        )
    profiles = profile if base is None else f"{base},{profile}"
    command = [maven, "-B", "-f", str(pom()), "-P", profiles, "generate-resources", f"-Dbraid.out={out}"]
    # Maven's default timeout for a silent connection is half an hour
    command += ["-Dmaven.wagon.rto=60000", "-Daether.connector.requestTimeout=60000"]
    lines: deque[str] = deque(maxlen=2000)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        cwd=out,
    ) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - PIPE above
            for line in process.stdout:
                lines.append(line.rstrip())
                transfer = _TRANSFER.match(line)
                if transfer and on_progress:
                    verb, name, size = transfer.groups()
                    on_progress(f"{verb.lower()} {name}" + (f" ({size})" if size else ""))
        except BaseException:
            process.send_signal(signal.SIGTERM)
            raise
    if process.returncode != 0:
        raise ProvisioningError(_explain(profile, process.returncode, list(lines)))
    shutil.rmtree(out / ".maven", ignore_errors=True)
    _verify(profile, out)


def _verify(profile: str, out: Path) -> None:
    expected = {}
    for line in checksums(profile).read_text("utf-8").splitlines():
        digest, _, name = line.partition("  ")
        expected[name] = digest
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                found[path.relative_to(out).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        different = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        raise ProvisioningError(
            f"Maven resolved other files for {profile!r} than Braid was built with: {', '.join(different[:5])} "
            f"({len(different)} of {len(expected)} files): compare with {checksums(profile)}. If a mirror is "
            "at fault, remove these artifacts from ~/.m2/repository and try again"
        )


def _explain(profile: str, code: int, lines: list[str]) -> str:
    errors = [
        line.removeprefix("[ERROR] ") for line in lines if line.startswith("[ERROR]") and len(line) > len("[ERROR] ")
    ]
    said = "\n  ".join((errors or lines)[:6])
    text = f"mvn could not resolve {profile!r} of {pom()} (exit code {code}). It said:\n  {said}"
    if any(sign in line for sign in _NETWORK for line in errors):
        text += "\nMaven needs the network the first time: connect, or set a reachable repository in ~/.m2/settings.xml"
    return text
