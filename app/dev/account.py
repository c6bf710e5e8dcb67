"""The servers' account. OpenSearch refuses to run as root, so for root it is an unprivileged account."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from app.errors import ProvisioningError
from app.provision.folders import make_folder


@dataclass(frozen=True, slots=True)
class Account:
    """Numeric user and group, and the name for messages."""

    name: str
    uid: int
    gid: int


def server_account() -> Account | None:
    """Return the account for servers; None for the caller's own, `nobody` (or a similar one) for root.

    Raises:
        ProvisioningError: the caller is root and no such account exists.
    """
    if os.geteuid() != 0:
        return None
    for name in ("nobody", "opensearch", "daemon"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise ProvisioningError("OpenSearch refuses to run as root and there is no user `nobody` here: run as another user")


def check_readable(account: Account | None, path: Path, *, what: str, remedy: str, enter: bool = False) -> None:
    """Check that `account` can reach and read `path`.

    Args:
        account: account that needs `path`; None is the current one.
        enter: whether it suffices to enter the folder without listing it.

    Raises:
        ProvisioningError: names `what`, the path, the account and the `remedy`.
    """
    # checked by the system as that account, since permissions may depend on more than mode bits
    as_account = {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}
    answer = subprocess.run(["test", "-x" if enter else "-r", str(path)], check=False, cwd="/", **as_account)  # type: ignore[call-overload]
    if answer.returncode != 0:
        who = "this user" if account is None else f"the user `{account.name}` (root starts OpenSearch under it)"
        raise ProvisioningError(f"{what} {path} is closed to {who}; {remedy}")


def own_folder(account: Account | None, path: Path) -> Path:
    """Create `path`, if missing, as a folder that only `account` writes; return it."""
    make_folder(path)
    try:
        if account is not None and path.stat().st_uid != account.uid:
            os.chown(path, account.uid, account.gid)
        path.chmod(0o700)
    except OSError as error:
        raise ProvisioningError(f"can't hand {path} to the server's account: {error.strerror}") from error
    return path


def private_folder(account: Account | None, path: Path) -> Path:
    """Create `path`, if missing, as a folder that only the caller can open and `account` can traverse; return it."""
    make_folder(path)
    try:
        if account is not None:
            os.chown(path, -1, account.gid)
        path.chmod(0o700 if account is None else 0o710)
    except OSError as error:
        raise ProvisioningError(
            f"can't close {path} to other users: {error.strerror}; choose another folder"
        ) from error
    return path
