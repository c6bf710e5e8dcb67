"""Files that callers sent, until they are stored: one folder a process, gone with it."""

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
    """A file of the spool, and what it holds of the spool's bound, once somebody has set that."""

    path: Path
    holds: list[Hold] = field(default_factory=list)

    def release(self) -> None:
        """Remove it and give back what it holds; what has been released already is not minded."""
        self.path.unlink(missing_ok=True)
        for hold in self.holds:
            hold.release()


class Spool:
    """A folder that only this account can open, below the system's temporary one (`TMPDIR`).

    Its owner holds a lock on a file in it, which ends with the owner however that ends: a process number could be
    another's by then.
    """

    def __init__(self) -> None:
        """Make the folder, and remove those of this account whose owners are gone."""
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))  # mode 0700
        made = self.folder / "new"
        self._lock = os.open(made, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        made.rename(self.folder / _LOCK)  # under its name it is locked from the first moment
        for other in self.folder.parent.glob(f"{_PREFIX}*"):
            if other != self.folder and _is_abandoned(other):
                _log.info("removing what a process that is gone left in %s", other)
                shutil.rmtree(other, ignore_errors=True)

    def new_file(self, suffix: str = "") -> SpooledFile:
        """A file that is not there yet. A suffix tells parsers Markdown from plain text."""
        return SpooledFile(self.folder / f"upload-{uuid.uuid4().hex}{suffix}")

    def close(self) -> None:
        """Remove the folder and what is left in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def _is_abandoned(folder: Path) -> bool:
    try:
        if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
            return False
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # another process makes it, or removes it, at this moment
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
