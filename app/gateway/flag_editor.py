"""Atomic changes to the file of feature flags: the file of `braid up`, and switching one flag."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.config.section import TENANT_PATTERN
from app.errors import InvalidInput
from app.gateway.flag_file import FLAGS, Flag, FlagSet, Rule, parse, read, shipped

_FILE_NAME = "flags.json"
"""Name of the flag file in the data folder of `braid up`."""
_MODE = 0o644
_OLDER_AS_SHIPPED = "2eece3af36319d37fd2344180f48e8699849cb54ac0c09ecdd5a0e4c5fcce3e7"
"""SHA-256 of the flagd file that Braid 0.1 wrote: no flag in it was switched."""


def own_file(data_dir: Path) -> Path:
    """Return the flag file of `braid up`, created if missing; flags added by a newer Braid get their defaults.

    Raises:
        InvalidInput: it is invalid or can't be written, or an older Braid left a flagd file.
    """
    path = (data_dir / _FILE_NAME).resolve()
    older = path.with_name("flags.flagd.json")
    if not path.exists() and older.exists():
        if hashlib.sha256(older.read_bytes()).hexdigest() != _OLDER_AS_SHIPPED:
            raise InvalidInput(
                f"{older}: Braid no longer reads flagd files: delete it, and repeat its changes with `braid flags set`"
            )
        older.unlink()
    with _lock(path.parent):
        flags = _load(path)
        if not path.exists() or flags.dump() != read(path):
            _write(path, flags)
    return path


def switch_flag(path: Path, name: str, tenants: Sequence[str], share: int) -> tuple[Flag, Flag]:
    """Switch a flag on for `share` percent of the callers; return it before and after the change.

    Args:
        path: path of the file, created if missing; if it is a link, its target is changed.
        tenants: tenants of the callers; none: everybody, which removes all rules of the flag.
        share: 0 to 100.

    Raises:
        InvalidInput: the flag or tenant does not exist, or the file is invalid or can't be written.
    """
    if name not in FLAGS:
        raise InvalidInput(f"{name!r} is not a flag; known flags: {', '.join(FLAGS)}")
    check_tenants(tenants)
    path = path.resolve()
    with _lock(path.parent):
        flags = _load(path)
        old = flags.flags[name]
        new = with_share(old, tenants, share)
        _write(path, FlagSet(flags=flags.flags | {name: new}))
    return old, new


def check_tenants(tenants: Sequence[str]) -> None:
    """Raise InvalidInput if a name can't be a tenant's."""
    for tenant in tenants:
        if not re.fullmatch(TENANT_PATTERN, tenant):
            raise InvalidInput(f"{tenant!r} is not a tenant name: 1 to 64 letters, digits, '_', '.', '-'")


def with_share(flag: Flag, tenants: Sequence[str], share: int) -> Flag:
    """Return `flag`, on for `share` percent of the callers: of `tenants`, or of everybody if there are none.

    Rules for tenants come first, so that they take precedence. Percentages are nested: a caller that has the flag at 10
    % has it at 30 %.
    """
    partial = 0 < share < 100
    if not tenants:
        return Flag(default=share == 100, rules=[Rule(percent=share, value=True)] if partial else [])
    rest = []
    for rule in flag.rules:
        others = None if rule.tenants is None else [name for name in rule.tenants if name not in tenants]
        if others != []:
            rest.append(rule.model_copy(update={"tenants": others}))
    named = set(tenants)
    part = [Rule(tenants=sorted(named), percent=share, value=True)] if partial else []
    # one list of tenants instead of a rule for each
    if not partial and rest and rest[0].tenants and rest[0].percent is None and rest[0].value == (share == 100):
        named.update(rest.pop(0).tenants or ())
    return Flag(default=flag.default, rules=[*part, Rule(tenants=sorted(named), value=share == 100), *rest])


def _load(path: Path) -> FlagSet:
    if not os.path.lexists(path):
        return shipped()
    try:
        return parse(read(path), complete=True)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error.detail}") from error


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Lock the folder: of two concurrent commands one would lose its change."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InvalidInput(f"{folder}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(path: Path, flags: FlagSet) -> None:
    """Replace the file atomically, keeping its mode and owner."""
    try:
        before = path.stat() if path.exists() else None
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            temporary = Path(folder) / path.name
            with temporary.open("wb") as file:
                file.write(flags.dump())
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(before.st_mode & 0o777 if before else _MODE)
            if before is not None:
                with contextlib.suppress(PermissionError):
                    os.chown(temporary, before.st_uid, before.st_gid)
            temporary.replace(path)
    except OSError as error:
        raise InvalidInput(f"{path}: can't be written: {error.strerror}") from error
