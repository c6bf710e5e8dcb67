"""A flagd file: read, and refused as a whole when anything in it is wrong.

flagd's own evaluator takes what it is given: an emptied file would put every flag to its default in the code, a
misspelt operator would only be found when a caller meets it. So a file is checked here before it counts.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.contrib.tools.flagd.core.targeting.targeting import OPERATORS
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import GeneralError, OpenFeatureError
from openfeature.flag_evaluation import FlagResolutionDetails

from app.errors import ConfigurationError, FieldProblem, InvalidInput
from app.features import ALL_ON, Features

SHIPPED = Path(__file__).with_name("flags.flagd.json")
FLAGS = tuple(field.name for field in fields(Features) if field.name != "variants")

_MOST_BYTES = 1024 * 1024
_MOST_DEPTH = 64
_SHOWN_PROBLEMS = 5
_MOST_WEIGHT = 2**31 - 1
_VARIANT = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_FLAG_KEYS = frozenset({"state", "variants", "defaultVariant", "targeting", "metadata"})
_LAZY = frozenset({"if", "?:", "and", "or", "filter", "reduce", "map", "all", "some", "none"})
_OPERATORS = frozenset(OPERATORS) | _LAZY
_YES_OR_NO = frozenset(
    {"==", "!=", "===", "!==", "<", ">", "<=", ">=", "!", "!!", "in", "starts_with", "ends_with", "all", "some", "none"}
)
_PROBES = (("default", None), ("another", "key:0"))
# an operator meets values that its writer did not think of
_EVALUATION_ERRORS = (
    ArithmeticError, AttributeError, LookupError, RecursionError, ReferenceError, TypeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FlagSet:
    """Checked flags: flagd's definitions of `FLAGS` with references put in, and what each is without its targeting."""

    definitions: Mapping[str, Mapping[str, Any]]
    defaults: Mapping[str, bool]

    @property
    def targeted(self) -> bool:
        """Whether any flag differs between callers."""
        return any(flag["targeting"] for flag in self.definitions.values())

    def evaluator(self) -> FlagdCore:
        """flagd's evaluator, holding these flags."""
        core = FlagdCore()
        core.set_flags(json.dumps({"flags": self.definitions}))
        return core


def context_of(tenant: str, subject: str | None) -> EvaluationContext:
    """What targeting sees of a caller; the key keeps a caller in its part of a rollout."""
    return EvaluationContext(f"{tenant}/{subject or ''}", {"tenant": tenant})


def resolve(
    core: FlagdCore, flag: str, default: bool, context: EvaluationContext | None
) -> FlagResolutionDetails[bool]:
    """What `core` says of `flag`. Raises OpenFeatureError: its targeting fails for this context."""
    try:
        return core.resolve_boolean_value(flag, default, context)
    except _EVALUATION_ERRORS as error:
        raise GeneralError(f"targeting fails: {type(error).__name__}") from error


def read(path: Path) -> bytes:
    """The content of a flags file. Raises InvalidInput: there is none, or it can't be read."""
    try:
        # opening a named pipe must not wait for its other end
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidInput("it is not a file")
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"it can't be read: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise InvalidInput(f"it is larger than {_MOST_BYTES} bytes, which no file of flags is")
    return content


def load(content: bytes) -> dict[str, Any]:
    """The JSON object that `content` is. Raises InvalidInput."""
    if not content.strip():
        raise InvalidInput("it is empty")
    try:
        data = json.loads(content.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError as error:
        raise InvalidInput("it is nested too deeply") from error
    except ValueError as error:  # also wrong encoding, and numbers of thousands of digits
        raise InvalidInput(f"it is not JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("flags"), dict):
        raise InvalidInput('it must be a JSON object with an object "flags", as flagd reads it')
    return data


def parse(content: bytes, *, shared: bool = False) -> FlagSet:
    """The flags of `content`; with `shared` (a flagd server) other software's flags may stand beside ours.

    Raises:
        InvalidInput: anything is wrong with it; `problems` has everything that is.
    """
    data = load(content)
    problems = list(_top_problems(data, shared))
    definitions: dict[str, dict[str, Any]] = {}
    for name in FLAGS:
        flag = data["flags"].get(name)
        if flag is None:
            problems.append(
                FieldProblem(("flags", name), "is missing; `braid flags set` adds what is missing, as it ships")
            )
            continue
        found = list(_flag_problems(flag))
        if not found:
            try:
                flag = {**flag, "targeting": _expand(flag.get("targeting") or {}, data.get("$evaluators") or {})}
                found = list(_targeting_problems(flag))
            except InvalidInput as error:
                found = [error.detail]
        problems += [FieldProblem(("flags", name), text) for text in found]
        definitions[name] = flag
    if not problems:
        flags = FlagSet(definitions, {name: _default(name, flag) for name, flag in definitions.items()})
        problems = list(_probe(flags))
        if not problems:
            return flags
    shown = "; ".join(f"{'.'.join(map(str, item.loc))} {item.msg}" for item in problems[:_SHOWN_PROBLEMS])
    more = f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
    raise InvalidInput(shown + more, problems=problems)


def read_usable(path: Path) -> tuple[bytes, FlagSet]:
    """The content and the flags of the file that ``BRAID_FLAGS_FILE`` names.

    Raises:
        ConfigurationError: it is missing or broken.
    """
    try:
        content = read(path)
        return content, parse(content)
    except InvalidInput as error:
        raise ConfigurationError(
            f"BRAID_FLAGS_FILE={str(path)!r} can't be used: {error.detail} "
            "(`braid flags validate FILE` checks one, `braid flags set` makes one)"
        ) from error


def shipped() -> FlagSet:
    """The flags that ship with Braid."""
    return parse(SHIPPED.read_bytes())


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{twice[:64]!r} is there twice in one object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _top_problems(data: Mapping[str, Any], shared: bool) -> Iterator[FieldProblem]:
    for name in ("$evaluators", "metadata"):
        if not isinstance(data.get(name, {}), dict):
            yield FieldProblem((name,), "must be an object")
    if not shared:
        for name in data["flags"]:
            if name not in FLAGS:
                yield FieldProblem(("flags", name[:64]), f"is no flag of Braid; there are {', '.join(FLAGS)}")


def _flag_problems(flag: Any) -> Iterator[str]:
    if not isinstance(flag, dict):
        yield "must be an object"
        return
    for name in flag.keys() - _FLAG_KEYS:
        yield f"has {name[:64]!r}; there are {', '.join(sorted(_FLAG_KEYS))}"
    if flag.get("state") not in ("ENABLED", "DISABLED"):
        yield f"has the state {str(flag.get('state'))[:64]!r}; it must be ENABLED or DISABLED"
    variants = flag.get("variants")
    if not isinstance(variants, dict) or not variants:
        yield 'must have variants, such as {"on": true, "off": false}'
        return
    for name, value in variants.items():
        if not isinstance(value, bool):
            yield f"has the variant {name[:64]!r} that is neither true nor false"
        if not _VARIANT.fullmatch(name):
            yield f"has the variant {name[:64]!r}: names are 1 to 64 letters, digits, '_', '.', '-'"
    chosen = flag.get("defaultVariant")
    if not isinstance(chosen, str) or chosen not in variants:
        yield f"has the defaultVariant {str(chosen)[:64]!r}, which must be one of {', '.join(variants)}"
    if not isinstance(flag.get("targeting") or {}, dict):
        yield "has a targeting that is no object"
    metadata = flag.get("metadata") or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str | int | float) for value in metadata.values()):
        yield "has metadata that is not an object of strings, numbers, true and false"


def _expand(rule: Any, evaluators: Mapping[str, Any], depth: int = 0) -> Any:
    """`rule` with each ``{"$ref": NAME}`` replaced. Raises InvalidInput."""
    if depth > _MOST_DEPTH:
        raise InvalidInput("has targeting that is nested too deeply, or refers to itself")
    if isinstance(rule, list):
        return [_expand(item, evaluators, depth + 1) for item in rule]
    if not isinstance(rule, dict):
        return rule
    if rule.keys() == {"$ref"}:
        name = rule["$ref"]
        if not isinstance(name, str) or name not in evaluators:
            raise InvalidInput(f"refers to {str(name)[:64]!r}, which is not in $evaluators")
        return _expand(evaluators[name], evaluators, depth + 1)
    return {key: _expand(value, evaluators, depth + 1) for key, value in rule.items()}


def _targeting_problems(flag: Mapping[str, Any]) -> Iterator[str]:
    rule = flag["targeting"]
    if not rule:
        return
    for logic in _objects(rule):
        if len(logic) != 1:
            yield "has targeting with an object of several keys, where one operator must stand"
        elif (operator := next(iter(logic))) not in _OPERATORS:
            yield f"has targeting with {operator[:64]!r}, which is no operator of flagd"
        elif operator == "fractional" and not _is_distribution(logic[operator]):
            yield "has a fractional that is not a list of [VARIANT, WEIGHT] with weights that are whole numbers"
    for outcome in _outcomes(rule):
        name = str(outcome).lower() if isinstance(outcome, bool) else outcome
        if name is not None and (not isinstance(name, str) or name not in flag["variants"]):
            yield f"has targeting that ends in {str(name)[:64]!r}, which is not one of {', '.join(flag['variants'])}"


def _objects(rule: Any) -> Iterator[dict[str, Any]]:
    if isinstance(rule, dict):
        yield rule
    children: Iterable[Any] = rule.values() if isinstance(rule, dict) else rule if isinstance(rule, list) else ()
    for child in children:
        yield from _objects(child)


def _entries(arguments: Any) -> list[Any]:
    """Of a fractional, without the expression that it may begin with."""
    if not isinstance(arguments, list):
        return []
    return arguments[1:] if arguments and not isinstance(arguments[0], list) else arguments


def _is_distribution(arguments: Any) -> bool:
    total = 0
    for entry in _entries(arguments):
        if not isinstance(entry, list) or len(entry) not in (1, 2):
            return False
        weight = entry[1] if len(entry) == 2 else 1
        if isinstance(weight, dict):  # computed; whether it comes out well shows when it is evaluated
            total += 1
        elif isinstance(weight, int) and not isinstance(weight, bool) and weight >= 0:
            total += weight
        else:
            return False
    return 0 < total <= _MOST_WEIGHT


def _outcomes(rule: Any) -> Iterator[Any]:
    """What `rule` can end in, as far as it can be read off it."""
    if not isinstance(rule, dict) or len(rule) != 1:
        yield None if isinstance(rule, dict) else rule
        return
    operator, arguments = next(iter(rule.items()))
    if operator in ("if", "?:"):
        branches = arguments if isinstance(arguments, list) else [arguments]
        last = len(branches) - 1
        for index, branch in enumerate(branches):
            if index % 2 == 1 or index == last:
                yield from _outcomes(branch)
    elif operator == "fractional":
        for entry in _entries(arguments):
            if isinstance(entry, list) and entry:
                yield from _outcomes(entry[0])
    elif operator in _YES_OR_NO:
        yield from (True, False)


def _default(name: str, flag: Mapping[str, Any]) -> bool:
    """A disabled flag is, for flagd, one that is not there: it is then as it ships."""
    if flag["state"] == "DISABLED":
        return bool(getattr(ALL_ON, name))
    return bool(flag["variants"][flag["defaultVariant"]])


def _probe(flags: FlagSet) -> Iterator[FieldProblem]:
    """What flagd's evaluator itself has against them."""
    try:
        core = flags.evaluator()
    except OpenFeatureError as error:
        yield FieldProblem(("flags",), f"can't be taken by flagd's evaluator: {error.error_message}")
        return
    for name in FLAGS:
        try:
            for tenant, subject in _PROBES:
                resolve(core, name, flags.defaults[name], context_of(tenant, subject))
        except OpenFeatureError as error:
            yield FieldProblem(("flags", name), f"can't be evaluated: {error.error_message}")
