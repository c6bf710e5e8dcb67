"""Finds the data files that ship with Braid (mappings, pipelines, the embedded pom.xml): checkout or wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def asset_folder(name: str) -> Path:
    """Folder of shipped files: ``mappings``, ``pipelines`` or ``docker/embedded``.

    In a checkout they lie beside the package; a wheel carries them in ``app/_assets``.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    for root in (_PACKAGE / "_assets", _PACKAGE.parent):
        folder = root / name
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"Braid's own files {name!r} are missing: reinstall the package")
