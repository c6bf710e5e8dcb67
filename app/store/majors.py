"""Releases of OpenSearch: which of the shipped files holds for which.

A file below ``since-X.Y`` replaces the file of the same path from that release on, until a later one replaces it. Each
is whole, so that it can be PUT with curl as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from app.store.drift import Value

Version = tuple[int, int, int]

OLDEST: Version = (2, 19, 0)
"""The release that the files outside the ``since-`` folders are for."""
KNOWN = (OLDEST, (3, 6, 0))
"""The releases that are tested."""
_PREFIX = "since-"


def shipped_file(folder: Path, file: str, version: Version) -> Path:
    """Return the path of `file` below `folder` for a cluster of that version."""
    fitting = [since for since in _releases(folder) if since <= version[:2]]
    for major, minor in sorted(fitting, reverse=True):
        newer = folder / f"{_PREFIX}{major}.{minor}" / file
        if newer.is_file():
            return newer
    return folder / file


def in_one_spelling(mapping: Mapping[str, Value]) -> dict[str, Value]:
    """Return the flattened mapping with half-precision vectors as 3.6 spells them: an index keeps the older spelling
    over an upgrade.
    """
    encoder = "properties.embedding.method.parameters.encoder.parameters"
    whole = dict(mapping)
    if whole.get(f"{encoder}.type") == "fp16":
        del whole[f"{encoder}.type"]
        whole[f"{encoder}.bits"] = "16"
    return whole


def _releases(folder: Path) -> Iterator[tuple[int, int]]:
    for newer in folder.glob(f"{_PREFIX}*"):
        major, minor = newer.name.removeprefix(_PREFIX).split(".")
        yield int(major), int(minor)
