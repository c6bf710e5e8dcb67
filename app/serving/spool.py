"""Spool: files that callers sent, until they are stored; one folder per process, removed with it."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from app.gateway.shares import Hold

_log = logging.getLogger("braid.ingest")

_PREFIX = "braid-spool-"
_LOCK = "lock"


@dataclass(frozen=True, slots=True)
class SpooledFile:
    """A file of the spool, and its parts of the spool's limit."""

    path: Path
    holds: list[Hold] = field(default_factory=list)

    def release(self) -> None:
        """Remove the file and release its parts of the limit; repeated calls do nothing."""
        self.path.unlink(missing_ok=True)
        for hold in self.holds:
            hold.release()


class Spool:
    """A folder that only this account can open, below the system's temporary folder (`TMPDIR`).

    Its owner holds a lock on a file in it, which ends with the owner, whatever the cause: a process number could have
    been reused.
    """

    def __init__(self) -> None:
        """Create the folder, and remove those of this account whose owners are gone."""
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))  # mode 0700
        made = self.folder / "new"
        self._lock = os.open(made, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        made.rename(self.folder / _LOCK)  # locked from the moment it has its name
        for other in self.folder.parent.glob(f"{_PREFIX}*"):
            if other != self.folder and _is_abandoned(other):
                _log.info("removing the files of a dead process in %s", other)
                shutil.rmtree(other, ignore_errors=True)

    def new_file(self, suffix: str = "") -> SpooledFile:
        """Return a new file that does not exist yet. A suffix distinguishes Markdown from plain text."""
        return SpooledFile(self.folder / f"upload-{uuid.uuid4().hex}{suffix}")

    def close(self) -> None:
        """Remove the folder and its content."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def _is_abandoned(folder: Path) -> bool:
    try:
        if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
            return False
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # another process is creating or removing it
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
