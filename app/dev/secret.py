"""Secret of the local servers: whoever can read its file has access to them."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path

from app.errors import ProvisioningError
from app.provision.folders import write_new_file

FILE_NAME = "secret"
_FORM = re.compile(r"[A-Za-z0-9_-]{32,256}")
"""Characters that need no quoting in a URL, a configuration file or a shell."""


def own_secret(data_dir: Path) -> str:
    """Return the secret in `data_dir`, created at the first call. Only the caller's account can read the file.

    Raises:
        ProvisioningError: the file belongs to another user, contains no secret, or can't be read or written.
    """
    path = data_dir / FILE_NAME
    try:
        with contextlib.suppress(FileNotFoundError):
            return _read(path)
        aside = path.with_name(f".{FILE_NAME}-{os.getpid()}")
        write_new_file(aside, secrets.token_hex(32) + "\n", mode=0o600)
        with contextlib.suppress(FileExistsError):  # another process was faster: its secret counts
            os.link(aside, path)
        aside.unlink()
        return _read(path)
    except OSError as error:
        raise ProvisioningError(f"can't keep a secret in {path}: {error.strerror}; choose another folder") from error


def _read(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise ProvisioningError(f"{path} belongs to another user, who may know its content: remove it")
        os.fchmod(descriptor, 0o600)
        found = file.read().strip()
    if not _FORM.fullmatch(found):
        raise ProvisioningError(
            f"{path} contains no secret (32 to 256 letters, digits, - and _ in one line): remove it; the next start "
            "creates one"
        )
    return found
