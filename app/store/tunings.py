"""Tunings in the cluster: the active one, and all earlier ones.

They are stored in the ``_meta`` of component templates that no index uses, as plain JSON that operators can read and
PUT: ``braid-tuning`` is active, ``braid-tuning-000001`` and up are the history. The cluster state is visible to every
service of the cluster at once, needs no index, and survives the loss of any index.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from app.errors import InvalidInput, StoreNotReady
from app.store.client import Cluster, find
from app.tuning import SHIPPED, Tuning

ACTIVE = "braid-tuning"
_KEPT = "braid-tuning-{:06d}"
_PATH = "/_component_template"
_FIELD = "tuning"


def active(cluster: Cluster) -> Tuning:
    """Return the active tuning; the shipped one if none was ever applied.

    Raises:
        StoreNotReady: the stored one is invalid.
        StoreError: the cluster does not answer.
    """
    return _read(cluster, ACTIVE) or SHIPPED


def history(cluster: Cluster) -> list[Tuning]:
    """Return all tunings that were ever applied, oldest first, without the shipped one. Raises as `active`."""
    return [_parse(name, body) for _, name, body in _kept(cluster)]


def kept(cluster: Cluster, version: int) -> Tuning:
    """Return a tuning of the history; 0 is the shipped one.

    Raises:
        InvalidInput: there is no such version; the message lists the existing ones.
        StoreNotReady, StoreError: as `active`.
    """
    if version == 0:
        return SHIPPED
    wanted = _read(cluster, _KEPT.format(version))
    if wanted is None:
        there = ", ".join(str(number) for number, _, _ in _kept(cluster)) or "none yet"
        raise InvalidInput(f"there is no tuning {version}; existing ones: 0 (as shipped), {there}")
    return wanted


def next_version(cluster: Cluster) -> int:
    """Return the number of the next tuning."""
    return max((number for number, _, _ in _kept(cluster)), default=0) + 1


def keep(cluster: Cluster, tuning: Tuning) -> None:
    """Add a tuning to the history without activating it. Raises StoreError if its number is taken."""
    _write(cluster, _KEPT.format(tuning.version), tuning, {"create": "true"})


def activate(cluster: Cluster, version: int) -> Tuning:
    """Activate a tuning of the history; 0 is the shipped one. Services see it within a second.

    Raises as `kept`; the active one need not be readable.
    """
    wanted = kept(cluster, version)
    if version:
        _write(cluster, ACTIVE, wanted)
    elif ACTIVE in _listing(cluster, ACTIVE):
        cluster.request("DELETE", f"{_PATH}/{ACTIVE}")
    return wanted


def _kept(cluster: Cluster) -> list[tuple[int, str, dict[str, Any]]]:
    """Return number, name and body of the history, oldest first."""
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
    answer = find(cluster, f"{_PATH}/{pattern}", params={"local": "true"})
    listed = answer["component_templates"] if answer is not None else ()
    return {item["name"]: item["component_template"] for item in listed}


def _parse(name: str, body: dict[str, Any]) -> Tuning:
    try:
        return Tuning.model_validate(body.get("_meta", {}).get(_FIELD), strict=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or _FIELD
        raise StoreNotReady(
            f"component template {name} contains no tuning of this version ({where}: {first['msg']}); "
            "`braid tune rollback --to` another, or delete it"
        ) from error
