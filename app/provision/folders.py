"""Folders that are created once and atomically, for all processes of this machine."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import ProvisioningError


def make_folder(path: Path) -> Path:
    """Create `path` with its parents, each new one readable by other accounts whatever the umask; return it.

    If the caller is root, the node runs under another account, which must be able to enter.

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
            f"can't create the folder {path}: {error.strerror}; set another with BRAID_CACHE_DIR or BRAID_DATA_DIR"
        ) from error
    if not path.is_dir():
        raise ProvisioningError(f"{path} is not a folder; remove it, or choose another place")
    return path


def write_new_file(path: Path, text: str, *, mode: int = 0o644, owner: tuple[int, int] | None = None) -> None:
    """Write a new file in place of any existing one, never through a link.

    For folders that the server's account owns while root writes into them.

    Args:
        mode: permissions, whatever the umask; by default readable by all.
        owner: user and group that get the file before it has content.
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
    """Hold the lock file `lock` (created if missing); another process waits until this one is done or dead."""
    make_folder(lock.parent)
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ProvisioningError(
            f"can't write {lock}: {error.strerror}; set another folder with BRAID_CACHE_DIR"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def build_aside(final: Path) -> Iterator[Path]:
    """Yield an empty folder beside `final`; at the end of the block it replaces `final` in one rename.

    Processes that have an older `final`'s files open keep them. If the block raises, nothing changes.
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
        if not inner.is_symlink():  # the target of a link is not ours
            inner.chmod(0o755 if inner.is_dir() or inner.stat().st_mode & stat.S_IXUSR else 0o644)
