"""Applies, compares, validates and exports the templates and pipelines. While serving only comparing is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from app.config import Settings
from app.errors import ConfigurationError, StoreNotReady
from app.store.capabilities import Capabilities, check_variant
from app.store.client import Cluster, StoreRequestError
from app.store.rendering import (
    ENDPOINTS,
    FIRST_INDEX,
    INDEX_TEMPLATE,
    READ_ALIAS,
    VARIANTS,
    WRITE_ALIAS,
    Json,
    Rendered,
    Resource,
    render,
)

_MISSING = "(missing)"
_LISTING = {
    "ingest pipeline": None,
    "search pipeline": None,
    "component template": "component_templates",
    "index template": "index_templates",
}


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference between this service and the cluster."""

    kind: str
    name: str
    field: str
    expected: Any
    found: Any

    def __str__(self) -> str:
        if self.found == _MISSING and not self.field:
            return f"{self.kind} {self.name} is missing"
        where = f", field {self.field}" if self.field else ""
        return f"{self.kind} {self.name}{where}: expected {_short(self.expected)}, found {_short(self.found)}"


@dataclass(frozen=True, slots=True)
class Change:
    """What `apply` did to one resource."""

    kind: str
    name: str
    action: Literal["created", "updated", "unchanged"]


@dataclass(frozen=True, slots=True)
class Live:
    """The indexes behind the read alias: mapping and settings of each, and which one the write alias names."""

    indexes: dict[str, Json]
    write_index: str | None

    @property
    def shards(self) -> int:
        """Primary shards of all indexes behind the read alias; 1 while there is none."""
        counts = [int(_flat(item["settings"]).get("index.number_of_shards", 1)) for item in self.indexes.values()]
        return sum(counts) or 1


def apply(cluster: Cluster, capabilities: Capabilities, rendered: Rendered) -> list[Change]:
    """Create or update what differs, then make the first index and its aliases if no alias exists.

    Existing indexes are never changed.

    Raises:
        CapabilityError: the cluster can't hold the variant.
        StoreNotReady: the index behind the aliases has another dimension, model or variant: nothing was changed.
    """
    check_variant(capabilities, rendered.variant)
    live = live_indexes(cluster)
    standing = list(_index_drift(live, rendered)) if live.indexes else []
    if standing:
        raise StoreNotReady(
            f"{standing[0]}. An index can't be changed in this: use the settings it was made with, or make a new index "
            "(another BRAID_DATA_DIR for `braid up`, or reindex and move the aliases)"
        )
    changes = []
    for resource in rendered.resources:
        found = _live_body(cluster, resource)
        if found is not None and not list(_compare(resource, found)):
            changes.append(Change(resource.kind, resource.name, "unchanged"))
            continue
        cluster.request("PUT", resource.path, body=resource.body)
        changes.append(Change(resource.kind, resource.name, "created" if found is None else "updated"))
    if not live.indexes:
        aliases = {READ_ALIAS: {}, WRITE_ALIAS: {"is_write_index": True}}
        cluster.request("PUT", f"/{FIRST_INDEX}", body={"aliases": aliases})
        changes.append(Change("index", FIRST_INDEX, "created"))
    return changes


def diff(cluster: Cluster, rendered: Rendered) -> list[Drift]:
    """Every difference, field by field; empty when the cluster is as this service needs it."""
    return compare(cluster, rendered)[0]


def compare(cluster: Cluster, rendered: Rendered) -> tuple[list[Drift], Live]:
    """Every difference, and the indexes that were looked at: five small requests."""
    drifts: list[Drift] = []
    for kind in ENDPOINTS:
        wanted = [item for item in rendered.resources if item.kind == kind]
        found = _list_live(cluster, kind, [item.name for item in wanted])
        for resource in wanted:
            if resource.name not in found:
                drifts.append(Drift(kind, resource.name, "", "present", _MISSING))
            else:
                drifts += _compare(resource, found[resource.name])
    live = live_indexes(cluster)
    drifts += _index_drift(live, rendered)
    return drifts, live


def live_indexes(cluster: Cluster) -> Live:
    """Mappings and settings of the indexes behind the read alias."""
    try:
        answer = cluster.request("GET", f"/{READ_ALIAS}", params={"flat_settings": "true"})
    except StoreRequestError as error:
        if error.status_code == 404:
            return Live({}, None)
        raise
    write = [
        name
        for name, item in answer.items()
        if WRITE_ALIAS in item.get("aliases", {}) and item["aliases"][WRITE_ALIAS].get("is_write_index", True)
    ]
    return Live(answer, write[0] if len(write) == 1 else None)


def validate(settings: Settings, dimension: int) -> list[str]:
    """What is wrong with the shipped files of all variants, in words; asks no cluster."""
    found: list[str] = []
    for variant in VARIANTS:
        try:
            found += [f"{variant}: {problem}" for problem in _offline(render(settings, variant, dimension))]
        except ConfigurationError as error:
            found.append(error.detail)
    return list(dict.fromkeys(found))


def simulate(cluster: Cluster, rendered: Rendered) -> list[str]:
    """What the cluster says to an index made of these templates, in words; they must have been applied."""
    body = {**rendered.body("index template", INDEX_TEMPLATE), "priority": 501}
    try:
        cluster.request("POST", "/_index_template/_simulate", body=body)
    except StoreRequestError as error:
        return [error.detail]
    return []


def export(rendered: Rendered, folder: Path) -> list[Path]:
    """Write each resource as it would be applied, ready for curl, and the sequence of calls; the files written."""
    written = []
    calls = ["#!/bin/sh", "# curl options such as -u user:password --cacert ca.pem go into CURL_OPTIONS", "set -e"]
    calls.append(': "${OPENSEARCH:?the URL of the cluster}"')
    put = "curl -fsS $CURL_OPTIONS -X PUT -H 'Content-Type: application/json'"
    for resource in rendered.resources:
        path = folder / resource.kind.replace(" ", "_") / f"{resource.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(resource.body, option=orjson.OPT_INDENT_2) + b"\n")
        written.append(path)
        calls.append(f'{put} "$OPENSEARCH{resource.path}" --data-binary @{path.relative_to(folder)}')
    aliases = orjson.dumps({"aliases": {READ_ALIAS: {}, WRITE_ALIAS: {"is_write_index": True}}}).decode()
    calls.append(f"{put} \"$OPENSEARCH/{FIRST_INDEX}\" --data-binary '{aliases}'")
    script = folder / "apply.sh"
    script.write_text("\n".join(calls) + "\n", encoding="utf-8")
    return [*written, script]


def _live_body(cluster: Cluster, resource: Resource) -> Json | None:
    return _list_live(cluster, resource.kind, [resource.name]).get(resource.name)


def _list_live(cluster: Cluster, kind: str, names: list[str]) -> dict[str, Json]:
    """Bodies by name of those of `names` that the cluster has."""
    # a comma list of names answers 404 if one is missing; a pattern never does, and ours share a prefix
    try:
        answer = cluster.request("GET", f"{ENDPOINTS[kind]}/braid-*" if kind != "search pipeline" else ENDPOINTS[kind])
    except StoreRequestError as error:
        if error.status_code == 404:
            return {}
        raise
    key = _LISTING[kind]
    if key is None:
        return {name: body for name, body in answer.items() if name in names}
    return {item["name"]: item[key[:-1]] for item in answer[key] if item["name"] in names}


def _compare(resource: Resource, found: Json) -> Iterator[Drift]:
    expected, live = _flat(_normal(resource)), _flat(_normal(Resource(resource.kind, resource.name, found, "")))
    for field in sorted(expected.keys() | live.keys()):
        left, right = expected.get(field, _MISSING), live.get(field, _MISSING)
        if left != right:
            yield Drift(resource.kind, resource.name, field, left, right)


def _index_drift(live: Live, rendered: Rendered) -> Iterator[Drift]:
    """What can't be changed later: the indexes' vectors, model and default pipeline."""
    if not live.indexes:
        yield Drift("alias", READ_ALIAS, "", "present", _MISSING)
        return
    if live.write_index is None:
        yield Drift("alias", WRITE_ALIAS, "is_write_index", "exactly one index", _MISSING)
    vector = rendered.body("component template", f"braid-vector-{rendered.variant}")["template"]
    wanted = _flat({"embedding": vector["mappings"]["properties"]["embedding"]})
    wanted |= {"_meta.embedding_model": rendered.embedding_model, "_meta.dimension": str(rendered.dimension)}
    wanted_settings = {"index.default_pipeline": "braid-passages"}
    if rendered.variant == "faiss-exact":
        wanted_settings["index.knn.advanced.approximate_threshold"] = "-1"
    for name, item in live.indexes.items():
        mappings = item.get("mappings", {})
        found = _flat({"embedding": mappings.get("properties", {}).get("embedding", {})})
        found |= _flat({"_meta": mappings.get("_meta", {})})
        found_settings = _flat(item["settings"])
        for field, expected in {**wanted, **wanted_settings}.items():
            actual = (found_settings if field.startswith("index.") else found).get(field, _MISSING)
            if actual != expected:
                yield Drift("index", name, field, expected, actual)


def _normal(resource: Resource) -> Json:
    """A body without the spellings that OpenSearch changes by itself."""
    body = dict(resource.body)
    if resource.kind == "component template":
        template = dict(body.get("template", {}))
        settings = _flat(template.pop("settings", {}))
        body["template"] = {
            **template,
            "settings": {k if k.startswith("index.") else f"index.{k}": v for k, v in settings.items()},
        }
        body["template"].setdefault("aliases", {})
        body["template"] = {key: value for key, value in body["template"].items() if value not in ({}, None)}
    return body


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested objects as dotted names; scalars as text, as OpenSearch gives settings back."""
    if isinstance(value, dict):
        found: dict[str, Any] = {}
        for key, item in value.items():
            found |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
        return found
    if isinstance(value, list):
        return {prefix: [orjson.dumps(item).decode() if isinstance(item, dict) else str(item) for item in value]}
    if isinstance(value, bool):
        return {prefix: str(value).lower()}
    return {prefix: str(value)}


def _offline(rendered: Rendered) -> Iterator[str]:
    templates = {item.name for item in rendered.resources if item.kind == "component template"}
    for item in rendered.resources:
        if item.kind.endswith("template"):
            meta = item.body.get("_meta", {})
            if meta.get("managed_by") != "braid" or not isinstance(meta.get("version"), int):
                yield f"{item.file}: _meta needs managed_by 'braid' and a whole-number version"
        elif not isinstance(item.body.get("version"), int):
            yield f"{item.file}: needs a whole-number version (pipelines take no _meta)"
        for needed in item.body.get("composed_of", []):
            if needed not in templates:
                yield f"{item.file}: composed_of names {needed}, which is not shipped"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= 80 else text[:77] + "..."
