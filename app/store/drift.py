"""Drift: differences between our body of a resource and the cluster's, field by field, whatever their spelling.

OpenSearch returns bodies in its own spelling: settings as text and under ``index.``, dotted or nested, lists of one for
a single value, additional empty parts. These are not differences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MISSING = "(missing)"
UNEXPECTED = "(nothing)"

Value = str | list[str]

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference between this service and the cluster: resource, field, expected and found value; what to do about
    it, where that is more than to apply the templates.
    """

    kind: str
    name: str
    field: str
    expected: Value
    found: Value
    remedy: str = ""

    def __str__(self) -> str:
        if self.found == MISSING and not self.field:
            return f"{self.kind} {self.name} is missing"
        where = f", field {self.field}" if self.field else ""
        told = f"{self.kind} {self.name}{where}: expected {_short(self.expected)}, found {_short(self.found)}"
        return f"{told}. {self.remedy}" if self.remedy else told


def flatten(value: object, prefix: str = "") -> dict[str, Value]:
    """Return leaves by dotted path in one spelling; empty and null values are omitted."""
    return dict(_leaves(value, prefix))


def settings_fields(settings: Mapping[str, Any]) -> dict[str, Value]:
    """Return index settings by dotted path, each under ``index.``."""
    return {name if name.startswith("index.") else f"index.{name}": value for name, value in flatten(settings).items()}


def body_fields(body: Mapping[str, Any]) -> dict[str, Value]:
    """Return a template or pipeline by dotted path; a template's settings as in `settings_fields`."""
    template = body.get("template")
    if not isinstance(template, Mapping) or "settings" not in template:
        return flatten(body)
    rest = {**body, "template": {key: value for key, value in template.items() if key != "settings"}}
    settings = settings_fields(template["settings"])
    return flatten(rest) | {f"template.settings.{name}": value for name, value in settings.items()}


def differences(kind: str, name: str, expected: Mapping[str, Value], found: Mapping[str, Value]) -> Iterator[Drift]:
    """Yield fields that one side lacks or that differ, in the order of their paths."""
    for field in sorted(expected.keys() | found.keys()):
        if expected.get(field) != found.get(field):
            yield Drift(kind, name, field, expected.get(field, UNEXPECTED), found.get(field, MISSING))


def shortfalls(kind: str, name: str, expected: Mapping[str, Value], found: Mapping[str, Value]) -> Iterator[Drift]:
    """Yield differences like `differences`, except fields that only the cluster has."""
    return differences(kind, name, expected, {field: found[field] for field in expected if field in found})


def _leaves(value: object, prefix: str) -> Iterator[tuple[str, Value]]:
    if value is None:
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list):
        if len(value) == 1:
            # in a list of objects (processors) the position is part of the path
            yield from _leaves(value[0], f"{prefix}.0" if isinstance(value[0], Mapping) else prefix)
        elif any(isinstance(item, Mapping) for item in value):
            for index, item in enumerate(value):
                yield from _leaves(item, f"{prefix}.{index}")
        elif value:
            yield prefix, [_scalar(item) for item in value]
    else:
        yield prefix, _scalar(value)


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return f"{float(text):.15g}" if _NUMBER.fullmatch(text) else text


def _short(value: Value) -> str:
    text = value if isinstance(value, str) else "[" + ", ".join(value) + "]"
    return text if len(text) <= 80 else text[:77] + "..."
