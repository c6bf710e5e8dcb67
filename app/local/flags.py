"""`braid flags`: what is on for whom, switching it, and checking a file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from app.config import Settings
from app.errors import ConfigurationError, InvalidInput
from app.features import ALL_ON
from app.gateway.flag_file import FLAGS, SHIPPED, load, parse, read
from app.gateway.flags import Flags
from app.local.flag_rules import Definition, Rule, read_rule, write_rule
from app.local.output import print_json
from app.store.filters import Scope

FILE_NAME = "flags.flagd.json"
"""In the data folder, where `braid up` keeps its flags."""
_TENANT = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MODE = 0o644


def show(settings: Settings, tenant: str | None, *, as_json: bool, console: Console) -> int:
    """`braid flags list`: each flag, its variant for the operator of `tenant`, and the rule behind it.

    Raises:
        ConfigurationError: the file is missing or broken.
    """
    asked = tenant if tenant is not None else settings.tenant
    _check_tenants([asked])
    flags = Flags(settings)
    try:
        features = flags.features(Scope(asked))
        warnings, source, definitions = flags.warnings(), flags.source, flags.current.definitions
    finally:
        flags.close()
    rows = [
        {
            "flag": name,
            "variant": features.variants[name],
            "on": getattr(features, name),
            "rule": _in_words(name, definitions[name]),
            "from": source,
        }
        for name in FLAGS
    ]
    if as_json:
        print_json({"tenant": asked, "flags": rows, "warnings": warnings})
        return 0
    table = Table("flag", f"for {asked}", "rule", title=f"from {source}", title_justify="left")
    for row in rows:
        table.add_row(str(row["flag"]), str(row["variant"]), str(row["rule"]))
    console.print(table)
    for text in warnings:
        console.print(text, style="yellow", markup=False)
    return 0


def switch(
    settings: Settings,
    flag: str,
    value: bool,
    *,
    tenants: Sequence[str] = (),
    percent: int | None = None,
    force: bool = False,
    console: Console,
) -> int:
    """`braid flags set`: for everybody (which ends all exceptions), or for `tenants`; for `percent` of the callers.

    Raises:
        ConfigurationError: the flags are not in a file of this machine.
        InvalidInput: no such flag or tenant; the file is broken; or the flag has targeting of somebody's own.
    """
    if settings.flagd is not None:
        raise ConfigurationError(f"the flags come from the flagd server {settings.flagd} (BRAID_FLAGD): set them there")
    if settings.flags_file is None:
        raise ConfigurationError(
            "the flags are those that ship with Braid, which are nobody's to change: set BRAID_FLAGS_FILE to a file of "
            "your own, for this command (which makes it) and for the service"
        )
    if flag not in FLAGS:
        raise InvalidInput(f"{flag!r} is no flag; there are {', '.join(FLAGS)}")
    _check_tenants(tenants)
    share = 100 if percent is None else percent
    share = share if value else 100 - share
    path = settings.flags_file.resolve()
    with _alone(path.parent):
        made = make_file(path)
        data = _completed(_load(path))
        old = data["flags"][flag]
        try:
            rule = read_rule(old)
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(
                f"{path}: {flag} is not as flagd has it; `braid flags validate` says what is wrong"
            ) from error
        if rule is None and not force:
            raise InvalidInput(
                f"{path}: the targeting of {flag} was not written by `braid flags set`; change it there, or replace "
                "it with --force"
            )
        before = _before(flag, old, rule)
        new = Rule(before.everybody, {**before.tenants, **dict.fromkeys(tenants, share)}) if tenants else Rule(share)
        data["flags"][flag] = write_rule(old, new)
        _write(path, data)
    if made:
        console.print(f"made {path} from the flags that ship with Braid", markup=False)
    console.print(f"{flag}: {new.describe()} (before: {_in_words(flag, old)})", markup=False)
    return 0


def validate(path: Path, *, console: Console) -> int:
    """`braid flags validate`: exit code 1, and each thing that is wrong, if the file can't be used."""
    try:
        parse(read(path))
    except InvalidInput as error:
        if not error.problems:
            console.print(f"{path}: {error.detail}", style="red", markup=False)
        for item in error.problems:
            console.print(f"{'.'.join(map(str, item.loc))} {item.msg}", style="red", markup=False)
        return 1
    console.print(f"{path}: {len(FLAGS)} flags, all usable", markup=False)
    return 0


def make_file(path: Path) -> bool:
    """Put the flags that ship with Braid at `path` unless there is something; whether it was made.

    Raises:
        InvalidInput: it can't be written.
    """
    if os.path.lexists(path):
        return False
    _write(path, load(SHIPPED.read_bytes()))
    return True


def own_file(data_dir: Path) -> Path:
    """The file of `braid up`, made if missing, with flags that a newer Braid has as they ship.

    Raises:
        InvalidInput: it is broken, or can't be written.
    """
    path = (data_dir / FILE_NAME).resolve()
    with _alone(path.parent):
        if not make_file(path):
            data = _load(path)
            if any(name not in data["flags"] for name in FLAGS):
                _write(path, _completed(data))
        try:
            parse(read(path))
        except InvalidInput as error:
            raise InvalidInput(f"{path}: {error.detail}") from error
    return path


def _load(path: Path) -> dict[str, Any]:
    try:
        return load(read(path))
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error.detail}") from error


def _completed(data: dict[str, Any]) -> dict[str, Any]:
    missing = {name: flag for name, flag in load(SHIPPED.read_bytes())["flags"].items() if name not in data["flags"]}
    return {**data, "flags": {**data["flags"], **missing}}


def _before(name: str, flag: Definition, rule: Rule | None) -> Rule:
    """What counts for whom so far; of targeting that is somebody's own, only what it falls back on."""
    if flag["state"] == "DISABLED":
        return Rule(100 if getattr(ALL_ON, name) else 0)
    return rule if rule is not None else Rule(100 if flag["variants"][flag["defaultVariant"]] else 0)


def _in_words(name: str, flag: Definition) -> str:
    rule = read_rule(flag)
    words = _before(name, flag, rule).describe()
    if flag["state"] == "DISABLED":
        return f"{words}, as it ships: it is disabled"
    return words if rule is not None else f"{words}, with targeting of its own"


def _check_tenants(tenants: Sequence[str]) -> None:
    for tenant in tenants:
        if not _TENANT.fullmatch(tenant):
            raise InvalidInput(f"{tenant!r} is no tenant: 1 to 64 letters, digits, '_', '.', '-'")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two commands at once would lose what one of them set."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InvalidInput(f"{folder}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(path: Path, data: dict[str, Any]) -> None:
    """All of it or nothing, and only if a service would take it."""
    try:
        content = orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        parse(content)
    except (InvalidInput, orjson.JSONEncodeError) as error:
        raise InvalidInput(f"{path}: nothing was written, for it could not be used: {error}") from error
    try:
        before = path.stat() if path.exists() else None
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(content)
                os.fchmod(file.fileno(), before.st_mode & 0o777 if before else _MODE)
                if before is not None:
                    with contextlib.suppress(PermissionError):
                        os.fchown(file.fileno(), before.st_uid, before.st_gid)
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise InvalidInput(f"{path}: can't be written: {error.strerror}") from error
