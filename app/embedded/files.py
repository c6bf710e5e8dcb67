"""Folders that are made once and seen whole or not at all, by every process of this machine."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import ProvisioningError


def make_folder(path: Path) -> Path:
    """Create `path` with its parents, each new one readable by other accounts whatever the umask; returns it.

    The node of a caller who is root runs under another account, which must get through.

    Raises:
        ProvisioningError: it can't be created.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)
    except OSError as error:
        raise ProvisioningError(
            f"can't create the folder {path}: {error.strerror}; name another with BRAID_CACHE_DIR or BRAID_DATA_DIR"
        ) from error
    if not path.is_dir():
        raise ProvisioningError(f"{path} is not a folder; remove it, or name another place")
    return path


def write_anew(path: Path, text: str, *, mode: int = 0o644, owner: tuple[int, int] | None = None) -> None:
    """Write a file in place of whatever has that name: never through a link that lies there.

    For folders that the server's account owns while root writes into them.

    Args:
        path: of the file.
        text: its content.
        mode: its permissions, whatever the umask; by default all may read it.
        owner: user and group that it is handed to before anything is in it.
    """
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        if owner is not None:
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
        file.write(text)


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold the lock file `lock` (created if missing); a second process waits until the first is done or dead."""
    make_folder(lock.parent)
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ProvisioningError(
            f"can't write {lock}: {error.strerror}; name another folder with BRAID_CACHE_DIR"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def built_aside(final: Path) -> Iterator[Path]:
    """Give an empty folder beside `final`; when the block ends well it takes `final`'s place in one rename.

    An older `final` is replaced; processes that have its files open keep them. When the block raises, nothing changes.
    """
    make_folder(final.parent)
    aside = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        fresh = aside / "new"
        fresh.mkdir()
        yield fresh
        _open_to_all(fresh)
        if final.exists():
            final.rename(aside / "old")
        fresh.rename(final)
    except OSError as error:
        raise ProvisioningError(f"can't fill {final}: {error.strerror or error}; is the disk full?") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _open_to_all(folder: Path) -> None:
    folder.chmod(0o755)
    for inner in folder.rglob("*"):
        if not inner.is_symlink():  # what it leads to is not ours
            inner.chmod(0o755 if inner.is_dir() else 0o644)
