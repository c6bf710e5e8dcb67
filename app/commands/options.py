"""Shared command options: the effective settings, access lists, and the connection to a running service."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import click

from app.access import RESTRICTIONS
from app.config import Settings, load_settings
from app.dev.state import with_running
from app.errors import InvalidInput
from app.fields import Stored
from app.passage import FIELDS

_NAMES = {"source_id": "source", "source_type": "type", "document_id": "document", "topic_tags": "tag", "pages": "page"}
"""Options that are not named as their field."""
_BOUNDS = {"from": "gte", "to": "lte"}
_NOT = "not_"
"""Prefix of the options that leave passages out."""
_DURATION = re.compile(r"([0-9]{1,9}) *(s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def settings_here(**overrides: object) -> Settings:
    """Return the settings, completed with the addresses of a running `braid up`."""
    return with_running(load_settings(**overrides))


def restriction_options(command: Any) -> Any:
    """Add `--acl-1` ... `--acl-4` to a command, which gets them as `acl_1` ... `acl_4`."""
    for name in reversed(RESTRICTIONS):
        about = "Restriction: a reader must have one of these names, too; may be given again."
        command = click.option(f"--{name.replace('_', '-')}", name, multiple=True, help=about)(command)
    return command


def restrictions(options: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the restrictions that were given."""
    return {name: options[name] for name in RESTRICTIONS if options[name]}


def service_options(command: Any) -> Any:
    """Add the options of a running service and of a search to a command: see `query_body`."""
    options = (
        click.option("--url", help="URL of the service (BRAID_URL)."),
        click.option("--key", help="API key (BRAID_API_KEY)."),
        click.option("--json", "as_json", is_flag=True, help="Print the service's JSON answer."),
        click.option("--mode", type=click.Choice(["hybrid", "lexical", "dense"]), default="hybrid"),
        click.option("--size", type=int, default=10, show_default=True),
        click.option("--exact-total", is_flag=True, help="Count all matches, however many."),
        *(option for name, stored in FIELDS.items() for option in _filter_options(name, stored)),
        *(option for name, stored in FIELDS.items() for option in _filter_options(name, stored, _NOT)),
    )
    for option in reversed(options):
        command = option(command)
    return command


def query_body(words: Sequence[str], mode: str, size: int, exact_total: bool = False, **filters: Any) -> dict[str, Any]:
    """Return the body of a search or answer request."""
    wanted = _given(filters)
    if excluded := _given(filters, _NOT):
        wanted["not"] = excluded
    body: dict[str, Any] = {"query": " ".join(words), "mode": mode, "size": size, "filter": wanted}
    return body | ({"exact_total": True} if exact_total else {})


def _given(filters: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the fields that the options of a prefix name, as in a request."""
    wanted: dict[str, Any] = {}
    for name, stored in FIELDS.items():
        key = f"{prefix}{name}"
        if stored.filter == "range":
            bounds = {bound: filters[f"{key}_{end}"] for end, bound in _BOUNDS.items() if filters[f"{key}_{end}"]}
            wanted |= {name: bounds} if bounds else {}
        elif stored.filter and filters[key]:
            wanted[name] = list(filters[key])
    return wanted


def _filter_options(name: str, stored: Stored, prefix: str = "") -> Iterator[Callable[[Any], Any]]:
    """Return the options that filter by a field; with the prefix `_NOT`, those that leave passages out."""
    option = prefix.replace("_", "-") + _NAMES.get(name, name.replace("_", "-"))
    label = f"{'Leave out: ' if prefix else ''}{stored.label}"
    if stored.filter == "range":
        for end in _BOUNDS:
            yield click.option(f"--{option}-{end}", f"{prefix}{name}_{end}", help=f"{label} {end}, ISO 8601.")
    elif stored.filter:
        kind: Any = int if stored.type == "integer" else str
        if stored.choices:
            kind = click.Choice([choice.value for choice in stored.choices])
        about = f"{'Leave out' if prefix else 'Only'} this {stored.label.lower()}; may be given again."
        yield click.option(f"--{option}", f"{prefix}{name}", multiple=True, type=kind, help=about)


def parse_duration(text: str, what: str) -> timedelta:
    """Parse a duration such as ``90s``, ``30m``, ``24h``, ``30d`` or ``2w``.

    Raises:
        InvalidInput: it is not a duration; `what` is the option's name.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise InvalidInput(f"{what} {text[:40]!r} is not a duration: write for example 90s, 30m, 24h, 30d or 2w")
    try:
        return timedelta(seconds=int(found[1]) * _SECONDS[found[2]])
    except OverflowError as error:
        raise InvalidInput(f"{what} {text!r} is too long: pass a shorter one") from error
