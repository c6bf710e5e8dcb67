"""Flag file: its format, and a thread that follows its changes.

A file is accepted or rejected as a whole. At run time a rejected file leaves the flags unchanged.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import fields
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app import telemetry
from app.config.section import Tenant
from app.errors import ConfigurationError, FieldProblem, InvalidInput
from app.features import ALL_ON, Features

FLAGS = tuple(field.name for field in fields(Features) if field.name != "variants")

_EXAMPLE = '{"default": true, "rules": [{"tenants": ["acme"], "percent": 25, "value": false}]}'
_FLAGD_KEYS = frozenset({"state", "variants", "defaultVariant", "targeting"})
_MOST_BYTES = 1024 * 1024
_SHOWN_PROBLEMS = 5
_POLL_S = 1.0
_END_S = 5.0
_REFUSED = "the file of feature flags is invalid: the flags are unchanged (`braid flags validate` lists the problems)"
_log = logging.getLogger("braid.flags")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Rule(_Strict):
    """Gives `value` to the callers of `tenants` (None: of all), or to `percent` of them."""

    tenants: Annotated[list[Tenant], Field(min_length=1)] | None = None
    percent: Annotated[float, Field(ge=0, le=100)] | None = None
    value: bool

    @model_validator(mode="after")
    def _has_condition(self) -> Rule:
        if self.tenants is None and self.percent is None:
            raise ValueError('names neither "tenants" nor "percent": set the "default" of the flag instead')
        return self


class Flag(_Strict):
    """The first of `rules` that matches a caller decides, else `default`."""

    default: bool
    rules: list[Rule] = []

    def decide(self, name: str, tenant: str, caller: str) -> tuple[bool, Rule | None]:
        """Return the value for `caller` of `tenant`, and the rule that gave it. `name` is the flag's name."""
        for rule in self.rules:
            if (rule.tenants is None or tenant in rule.tenants) and (
                rule.percent is None or bucket(name, caller) < rule.percent
            ):
                return rule.value, rule
        return self.default, None

    def in_words(self) -> str:
        """Describe the rules in their order, such as ``acme: off; on for 30 %; else off``."""
        words = []
        for rule in self.rules:
            whom = f"{', '.join(rule.tenants)}: " if rule.tenants else ""
            part = f" for {rule.percent:g} %" if rule.percent is not None else ""
            words.append(f"{whom}{'on' if rule.value else 'off'}{part}")
        return "; ".join([*words, f"{'else ' if words else ''}{'on' if self.default else 'off'}"])


class FlagSet(_Strict):
    """All flags of a file, by name."""

    flags: dict[str, Flag]

    def dump(self) -> bytes:
        """Return the content of a file with these flags."""
        return json.dumps(self.model_dump(exclude_none=True, exclude_defaults=True), indent=2).encode() + b"\n"


def bucket(flag: str, caller: str) -> float:
    """Return the position of `caller` in [0, 100) for `percent`. It depends only on the two names, so that it is the
    same in all workers and after a restart; it differs between flags.
    """
    return int.from_bytes(blake2b(f"{flag}\0{caller}".encode(), digest_size=6).digest()) * 100 / 2**48


def shipped() -> FlagSet:
    """Return the flags that ship with Braid."""
    return FlagSet(flags={name: Flag(default=getattr(ALL_ON, name)) for name in FLAGS})


def read(path: Path) -> bytes:
    """Return the content of a flag file. Raises InvalidInput if it is missing or unreadable."""
    try:
        # opening a named pipe must not wait for its other end
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidInput("it is not a file")
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"it can't be read: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise InvalidInput(f"it is larger than {_MOST_BYTES} bytes: this is not a flag file")
    return content


def parse(content: bytes, *, complete: bool = False) -> FlagSet:
    """Return the flags of `content`; with `complete`, missing flags are added with their defaults.

    Raises:
        InvalidInput: it is invalid; `problems` lists all problems.
    """
    data = _load(content)
    problems: list[FieldProblem] = []
    try:
        found = FlagSet.model_validate(data)
    except ValidationError as error:
        problems = [
            FieldProblem(item["loc"], f"{item['msg'].removeprefix('Value error, ')}, not {str(item['input'])[:64]!r}")
            for item in error.errors(include_url=False)
        ]
    unknown, missing = data["flags"].keys() - set(FLAGS), set() if complete else set(FLAGS) - data["flags"].keys()
    no_flag, is_missing = (
        f"is not a flag of Braid; known flags: {', '.join(FLAGS)}",
        "is missing; `braid flags set` adds it",
    )
    problems += [FieldProblem(("flags", name[:64]), no_flag) for name in sorted(unknown)]
    problems += [FieldProblem(("flags", name), is_missing) for name in FLAGS if name in missing]
    if problems:
        shown = "; ".join(f"{'.'.join(map(str, item.loc))} {item.msg}" for item in problems[:_SHOWN_PROBLEMS])
        more = f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        raise InvalidInput(f"{shown}{more} (a flag is written as {_EXAMPLE})", problems=problems)
    return FlagSet(flags={name: found.flags.get(name) or flag for name, flag in shipped().flags.items()})


def read_usable(path: Path) -> tuple[bytes, FlagSet]:
    """Return the content and the flags of the file in ``BRAID_FLAGS_FILE``.

    Raises:
        ConfigurationError: it is missing or invalid.
    """
    try:
        content = read(path)
        return content, parse(content)
    except InvalidInput as error:
        raise ConfigurationError(
            f"BRAID_FLAGS_FILE={str(path)!r} can't be used: {error.detail} "
            "(`braid flags validate FILE` checks it, `braid flags set` creates one)"
        ) from error


class Watcher:
    """Follows a file by reading it again and again, since it is small. Times of files are not reliable: a copy keeps an
    old one, and two writes may share one.
    """

    def __init__(self, path: Path, apply: Callable[[FlagSet], None]) -> None:
        """Apply the flags of the file, and follow its changes. Raises ConfigurationError if it is
        missing or invalid.
        """
        self.warning: str | None = None
        self._path, self._apply = path, apply
        content, flags = read_usable(path)
        self._seen: bytes | None = content
        apply(flags)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="braid-flags", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Read the file, and apply it if it changed; problems are logged once."""
        content = None
        try:
            content = read(self._path)
            if content == self._seen:
                return
            self._apply(parse(content))
        except InvalidInput as error:
            if content != self._seen:
                telemetry.FLAG_SETS.labels("refused").inc()
                _log.warning("feature flags: the file %s: %s; the flags are unchanged", self._path, error.detail)
            self.warning = _REFUSED
        else:
            telemetry.FLAG_SETS.labels("applied").inc()
            _log.info("feature flags: the file %s: new flags are active", self._path)
            self.warning = None
        self._seen = content

    def close(self) -> None:
        self._stopped.set()
        self._thread.join(_END_S)

    def _watch(self) -> None:
        while not self._stopped.wait(_POLL_S):
            self.look()


def _load(content: bytes) -> dict[str, Any]:
    if not content.strip():
        raise InvalidInput("it is empty")
    try:
        data = json.loads(content.decode("utf-8"), object_pairs_hook=_reject_duplicates, parse_constant=_no_constant)
    except RecursionError as error:
        raise InvalidInput("it is nested too deeply") from error
    except ValueError as error:  # also a wrong encoding, and numbers of thousands of digits
        raise InvalidInput(f"it is not JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(flags := data.get("flags"), dict):
        raise InvalidInput(f'it must be a JSON object such as {{"flags": {{"rerank": {_EXAMPLE}, ...}}}}')
    if any(isinstance(flag, dict) and _FLAGD_KEYS & flag.keys() for flag in flags.values()):
        raise InvalidInput(
            f'it is a flagd file, which Braid no longer reads: write each flag as "rerank": {_EXAMPLE}, '
            "or move the file away and repeat `braid flags set` (docs/flags.md)"
        )
    return data


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:64]!r} occurs twice in one object")
        found[name] = value
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
