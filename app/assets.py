"""Data files that ship with Braid (mappings, pipelines, the embedded pom.xml), in a checkout or a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def asset_folder(name: str) -> Path:
    """Return the folder of shipped files: ``mappings``, ``pipelines`` or ``docker/embedded``.

    In a checkout it is beside the package; a wheel has it in ``app/_assets``.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    for root in (_PACKAGE / "_assets", _PACKAGE.parent):
        folder = root / name
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"Braid's own files {name!r} are missing: reinstall the package")
