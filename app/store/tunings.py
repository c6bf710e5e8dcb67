"""Tunings on the cluster: the one in force, and those that were, so that each can be had back.

They live in the ``_meta`` of component templates that no index uses, plain JSON that ops people can read and PUT:
``braid-tuning`` is in force, ``braid-tuning-000001`` and up are the history. Cluster state is the one place that every
service of the cluster sees at once, needs no index, and survives whatever happens to one.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from app.errors import InvalidInput, StoreNotReady
from app.store.client import Cluster, StoreRequestError
from app.tuning import SHIPPED, Tuning

ACTIVE = "braid-tuning"
_KEPT = "braid-tuning-{:06d}"
_PATH = "/_component_template"
_FIELD = "tuning"


def active(cluster: Cluster) -> Tuning:
    """The tuning in force; the shipped one where none was ever applied.

    Raises:
        StoreNotReady: what is there is none of ours.
        StoreError: the cluster can't be asked.
    """
    return _read(cluster, ACTIVE) or SHIPPED


def history(cluster: Cluster) -> list[Tuning]:
    """All that were ever applied, oldest first, without the shipped one. Raises as `active`."""
    return [_parse(name, body) for _, name, body in _kept(cluster)]


def kept(cluster: Cluster, version: int) -> Tuning:
    """One that was ever applied; 0 is the shipped one.

    Raises:
        InvalidInput: there is no such version; the ones that there are.
        StoreNotReady, StoreError: as `active`.
    """
    if version == 0:
        return SHIPPED
    wanted = _read(cluster, _KEPT.format(version))
    if wanted is None:
        there = ", ".join(str(number) for number, _, _ in _kept(cluster)) or "none yet"
        raise InvalidInput(f"there is no tuning {version}; there are: 0 (as shipped), {there}")
    return wanted


def next_version(cluster: Cluster) -> int:
    """The number of the next tuning."""
    return max((number for number, _, _ in _kept(cluster)), default=0) + 1


def keep(cluster: Cluster, tuning: Tuning) -> None:
    """Add a tuning to the history; it is not in force by that. Raises StoreError where its number is taken."""
    _write(cluster, _KEPT.format(tuning.version), tuning, {"create": "true"})


def activate(cluster: Cluster, version: int) -> Tuning:
    """Put a tuning of the history in force; 0 is the shipped one. Services see it within a second.

    Raises as `kept`; what is in force need not be readable.
    """
    wanted = kept(cluster, version)
    if version:
        _write(cluster, ACTIVE, wanted)
    elif ACTIVE in _listing(cluster, ACTIVE):
        cluster.request("DELETE", f"{_PATH}/{ACTIVE}")
    return wanted


def _kept(cluster: Cluster) -> list[tuple[int, str, dict[str, Any]]]:
    """Number, name and body of the history, oldest first."""
    listed = _listing(cluster, f"{ACTIVE}-*").items()
    numbered = [(name.removeprefix(f"{ACTIVE}-"), name, body) for name, body in listed]
    return sorted(
        ((int(number), name, body) for number, name, body in numbered if number.isdecimal()), key=lambda item: item[0]
    )


def _write(cluster: Cluster, name: str, tuning: Tuning, params: dict[str, str] | None = None) -> None:
    meta = {"managed_by": "braid", "version": max(1, tuning.version), _FIELD: tuning.model_dump(mode="json")}
    cluster.request("PUT", f"{_PATH}/{name}", params=params, body={"template": {}, "_meta": meta})


def _read(cluster: Cluster, name: str) -> Tuning | None:
    found = _listing(cluster, name)
    return _parse(name, found[name]) if name in found else None


def _listing(cluster: Cluster, pattern: str) -> dict[str, dict[str, Any]]:
    try:
        answer = cluster.request("GET", f"{_PATH}/{pattern}", params={"local": "true"})
    except StoreRequestError as error:
        if error.status_code == 404:
            return {}
        raise
    return {item["name"]: item["component_template"] for item in answer["component_templates"]}


def _parse(name: str, body: dict[str, Any]) -> Tuning:
    try:
        return Tuning.model_validate(body.get("_meta", {}).get(_FIELD), strict=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or _FIELD
        raise StoreNotReady(
            f"component template {name} holds no tuning of this version ({where}: {first['msg']}); "
            "`braid tune rollback --to` another, or delete it"
        ) from error
