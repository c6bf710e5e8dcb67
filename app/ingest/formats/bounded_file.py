"""Reading of files: opened once; anything but a regular file of limited size is rejected."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from pathlib import Path

from app.errors import DocumentRejected
from app.ingest.formats.limits import Limits, megabytes


def check_name(path: Path) -> None:
    """Reject a name that can't be displayed or stored.

    Raises:
        DocumentRejected: ``bad-name``, with the name shown escaped.
    """
    name = path.name
    if any(unicodedata.category(ch) in ("Cc", "Cs") for ch in name):
        raise DocumentRejected(
            f"{name!a}: the name contains control characters or is not valid UTF-8: rename the file",
            reason="bad-name",
        )


def read_file(path: Path, limits: Limits, handle: int | None = None) -> bytes:
    """Return the whole file. It is opened only once, so that the checked file is the one that is read.

    `handle` is a descriptor of the content if the file is already open; `path` is then only its name. It stays open.

    Raises:
        DocumentRejected: ``bad-name``, ``not-a-file`` (a link, folder, pipe, device), ``unreadable``, ``too-large``,
            ``empty``.
    """
    check_name(path)
    if handle is not None:
        os.lseek(handle, 0, os.SEEK_SET)
    with open(_open(path) if handle is None else handle, "rb", closefd=handle is None) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise DocumentRejected("a folder, pipe or device, not a file", reason="not-a-file")
        if about.st_size > limits.max_file_bytes:
            raise _too_large(about.st_size, limits)
        try:
            data = file.read(limits.max_file_bytes + 1)
        except OSError as error:
            raise DocumentRejected(f"the file can't be read: {error.strerror}", reason="unreadable") from error
    if len(data) > limits.max_file_bytes:
        raise _too_large(len(data), limits)
    if not data:
        raise DocumentRejected("the file is empty (0 bytes)", reason="empty")
    return data


def _open(path: Path) -> int:
    try:
        # opening a pipe without a writer would block forever
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DocumentRejected("a symbolic link: pass its target", reason="not-a-file") from error
        if error.errno == errno.ENXIO:
            raise DocumentRejected("a socket or pipe, not a file", reason="not-a-file") from error
        raise DocumentRejected(f"the file can't be read: {error.strerror}", reason="unreadable") from error


def _too_large(size: int, limits: Limits) -> DocumentRejected:
    return DocumentRejected(
        f"{megabytes(size)} is more than the limit of {megabytes(limits.max_file_bytes)}: split the file, or raise "
        f"BRAID_INGEST_MAX_FILE_BYTES",
        reason="too-large",
    )
