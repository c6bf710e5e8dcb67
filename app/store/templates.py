"""Templates and pipelines: apply, compare, validate, export. While serving only the comparison is used."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import orjson

from app.calibration import split_name
from app.config import Settings
from app.errors import ConfigurationError, StoreNotReady
from app.languages import ANALYZERS
from app.store import heads, languages
from app.store.capabilities import Capabilities, check_variant
from app.store.client import HEADS_INDEX, READ_ALIAS, WRITE_ALIAS, Cluster, StoreRequestError, find
from app.store.drift import MISSING, UNEXPECTED, Drift, body_fields, differences, flatten, settings_fields, shortfalls
from app.store.majors import KNOWN, in_one_spelling
from app.store.rendering import (
    ENDPOINTS,
    FIELDS_TEMPLATE,
    FIRST_INDEX,
    HEADS_TEMPLATE,
    INDEX_TEMPLATE,
    INGEST_PIPELINE,
    IVFPQ_MODEL,
    JOBS_TEMPLATE,
    KEYS_TEMPLATE,
    QUERY_LOG_TEMPLATE,
    VARIANTS,
    Json,
    RenderedResources,
    compose,
    offline_problems,
    render,
)
from app.store.similarity import SIMILARITY

_DEFAULT_PIPELINE = "index.default_pipeline"
_THRESHOLD = "index.knn.advanced.approximate_threshold"
_ADJUSTABLE = frozenset({_DEFAULT_PIPELINE, _THRESHOLD, "index.gc_deletes"})
"""Settings of an existing index that `apply` fixes; nothing else about an index is ever changed."""
_FREE = frozenset({"index.number_of_shards", "index.number_of_replicas", "index.refresh_interval"})
"""Settings of an existing index that may differ: they belong to its operator."""
_SIMILARITY = f"{SIMILARITY}.type"
_NO_GRAPH = "-1"
_VERSION = "_meta.version"
_EMBEDDING_MODEL = "_meta.embedding_model"
_OLDEST = 2
"""Oldest mapping version whose indexes are still searched."""
ADDED_FIELDS = ("detected_language", "language_confidence")
"""Fields that `apply` adds to an index that lacks them."""
_OF_LANGUAGES = (
    "_meta.languages",
    "_source.excludes",
    f"properties.{languages.OWN}.",
    *(f"index.analysis.analyzer.braid_{code}." for code in ANALYZERS),
)
"""What the languages of the settings add to an index (`other_languages` names an index that has others)."""
_SINCE_OLDEST = (
    *(f"properties.{name}" for name in ("acl_1", "acl_2", "acl_3", "acl_4", "pages", "spans", "language")),
    *(f"properties.{name}" for name in ADDED_FIELDS),
    *(f"properties.content.fields.{name}" for name in ("folded", "bigrams")),
    *(f"index.analysis.analyzer.{name}" for name in ("braid_folded", "braid_bigrams")),
    "index.analysis.filter.braid_cjk_only",
)
"""Additions of version 3. Searches do not need them: an absent restriction is open, and no older Braid wrote any."""
_DEFAULT = "(default)"
_IN_LISTING = {"component template": "component_template", "index template": "index_template"}
_IN_STATE = {"ingest pipeline": "ingest", "search pipeline": "search_pipeline"}
"""Location of pipelines in the cluster's state."""


@dataclass(frozen=True, slots=True)
class Change:
    """Change that `apply` made to one resource."""

    kind: str
    name: str
    action: Literal["created", "updated", "unchanged"]


@dataclass(frozen=True, slots=True)
class LiveIndexes:
    """The indexes named like ours or behind our aliases, as returned by ``GET /<index>``."""

    all_indexes: dict[str, Json]

    @property
    def indexes(self) -> dict[str, Json]:
        """The indexes behind the read alias."""
        return {name: item for name, item in self.all_indexes.items() if READ_ALIAS in item.get("aliases", {})}

    @property
    def has_heads(self) -> bool:
        """Return whether the index of documents' heads exists."""
        return HEADS_INDEX in self.all_indexes

    @property
    def write_indexes(self) -> list[str]:
        """Return the possible targets of writes to the write alias; normally one."""
        behind = {
            name: item["aliases"][WRITE_ALIAS].get("is_write_index")
            for name, item in self.all_indexes.items()
            if WRITE_ALIAS in item.get("aliases", {})
        }
        chosen = [name for name, is_write in behind.items() if is_write]
        # OpenSearch takes an alias's only index for its write index unless configured otherwise
        return chosen or [name for name, is_write in behind.items() if is_write is None]

    @property
    def hidden_write_index(self) -> str | None:
        """Return the write index if searches do not include it, as after a rollover."""
        return next((name for name in self.write_indexes if name not in self.indexes), None)

    @property
    def shards(self) -> int:
        """Primary shards of all indexes behind the read alias; 1 if there is none."""
        counts = [int(item["settings"]["index.number_of_shards"]) for item in self.indexes.values()]
        return sum(counts) or 1


def apply(cluster: Cluster, capabilities: Capabilities, rendered: RenderedResources) -> list[Change]:
    """Create or update what differs, then create the first index and its aliases if there is none. Idempotent.

    Of an existing index only the default pipeline, the graph threshold, missing `ADDED_FIELDS` and its aliases are
    fixed: a lost write alias, and a write index that searches do not include (after a rollover); of the index of heads
    the number of copies.

    Raises:
        CapabilityError: the cluster can't hold the variant.
        StoreNotReady: an index behind the aliases has other vectors, another model or other fields, an index has the
            name of an alias, or the variant's model is not trained. Nothing was changed then.
    """
    check_variant(capabilities, rendered.variant)
    live = live_indexes(cluster)
    _refuse_unfit(cluster, live, rendered)
    changes = put_resources(cluster, rendered)
    if live.indexes:
        changes += _adjust_indexes(cluster, live, rendered)
    else:
        cluster.request("PUT", f"/{FIRST_INDEX}", body=rendered.first_index)
        changes.append(Change("index", FIRST_INDEX, "created"))
    if not live.has_heads:
        heads.ensure_index(cluster)
        changes.append(Change("index", cluster.heads_index, "created"))
    elif heads.has_fewer_copies(live.all_indexes[HEADS_INDEX]["settings"]):
        heads.add_copies(cluster)
        changes.append(Change("index", cluster.heads_index, "updated"))
    return changes


def put_resources(cluster: Cluster, rendered: RenderedResources) -> list[Change]:
    """Create or update the templates and pipelines that differ, whatever indexes there are. Raises StoreError."""
    changes = []
    for kind in ENDPOINTS:
        found = _bodies(cluster, kind)
        for resource in rendered.of_kind(kind):
            there = found.get(resource.name)
            if there is not None and body_fields(there) == body_fields(resource.body):
                changes.append(Change(kind, resource.name, "unchanged"))
                continue
            cluster.request("PUT", resource.path, body=resource.body)
            changes.append(Change(kind, resource.name, "created" if there is None else "updated"))
    return changes


def state_id(cluster: Cluster) -> str:
    """Return the id of the cluster's state; templates, pipelines, mappings and aliases do not change without it.

    Raises:
        StoreError: the cluster does not answer.
    """
    params = {"local": "true", "filter_path": "state_uuid"}
    return str(cluster.request("GET", "/_cluster/state/version", params=params)["state_uuid"])


def compare(cluster: Cluster, rendered: RenderedResources) -> tuple[list[Drift], LiveIndexes]:
    """Return every difference, and the indexes that were read: five small requests (six with a trained model)."""
    drifts: list[Drift] = []
    for kind in ENDPOINTS:
        found = _bodies(cluster, kind)
        for resource in rendered.of_kind(kind):
            there = found.get(resource.name)
            if there is None:
                drifts.append(Drift(kind, resource.name, "", "present", MISSING))
            else:
                drifts += differences(kind, resource.name, body_fields(resource.body), body_fields(there))
    live = live_indexes(cluster)
    drifts += _alias_drift(live)
    drifts += _index_drift(live, rendered)
    if not live.has_heads and read_only(live, rendered) is None:
        drifts.append(Drift("index", HEADS_INDEX, "", "present", MISSING))
    drifts += _model_drift(cluster, rendered)
    return drifts, live


def read_only(live: LiveIndexes, rendered: RenderedResources) -> str | None:
    """Return why the indexes behind the aliases are searched but not written, and the remedy; None
    if they are written.
    """
    ours = _mapping_version(rendered.body("component template", FIELDS_TEMPLATE)["template"]["mappings"])
    old = {name: _mapping_version(item.get("mappings", {})) for name, item in live.indexes.items()}
    shown = [f"{name} (version {version})" for name, version in old.items() if version < ours]
    if not shown:
        return None
    return (
        f"created by an older Braid, so searched but not written (this one writes mapping version {ours}): index "
        f"{', '.join(shown)}. To write again, ingest the sources into a new store (`braid up --data ANOTHER_FOLDER`), "
        'or copy the index into a new one: `braid reindex` (docs/store.md, "An index of an older Braid")'
    )


def other_languages(live: LiveIndexes, rendered: RenderedResources) -> str | None:
    """Return why indexes with text fields of other languages than the settings are searched but not written, and the
    remedy; None if there is none.
    """
    ours = languages.languages_of_index(rendered.body("component template", FIELDS_TEMPLATE)["template"]["mappings"])
    found = {name: languages.languages_of_index(item.get("mappings", {})) for name, item in live.indexes.items()}
    shown = [f"{name} ({', '.join(codes) or 'none'})" for name, codes in found.items() if codes != ours]
    if not shown:
        return None
    return (
        f"has text fields of other languages than BRAID_LANGUAGES ({', '.join(ours) or 'none'} beside the main one), "
        f"so searched but not written: index {', '.join(shown)}. To write again, set BRAID_LANGUAGES to the index's "
        "languages, or copy the index into a new one: `braid templates apply`, then `braid reindex` (docs/languages.md)"
    )


def text_fields(live: LiveIndexes, rendered: RenderedResources) -> dict[str, str]:
    """Return language -> field that queries in it ask, of those that all indexes behind the alias have."""
    return languages.available(rendered.text_fields, [item.get("mappings", {}) for item in live.indexes.values()])


def live_indexes(cluster: Cluster) -> LiveIndexes:
    """Return the indexes named like ours or behind our aliases, and the index of heads."""
    params = {"flat_settings": "true", "local": "true", "ignore_unavailable": "true"}
    return LiveIndexes(cluster.request("GET", f"/{READ_ALIAS}*,{HEADS_INDEX}", params=params))


def validate(settings: Settings, dimension: int) -> list[str]:
    """Return problems of the shipped files of all variants and versions, in words; no cluster is needed."""
    found: list[str] = []
    for variant, version in itertools.product(VARIANTS, KNOWN):
        try:
            found += offline_problems(render(settings, variant, dimension, version=version))
        except ConfigurationError as error:
            found.append(error.detail)
    return list(dict.fromkeys(found))


def simulate(cluster: Cluster, rendered: RenderedResources) -> list[str]:
    """Return the cluster's problems with these files, in words; changes nothing, and the files need not be applied.

    Templates and the ingest pipeline are simulated; search pipelines can't be. Other index templates that would take
    precedence over ours are reported.
    """
    problems: list[str] = []
    whole_bodies = {INDEX_TEMPLATE: compose(rendered)}
    for name in (QUERY_LOG_TEMPLATE, KEYS_TEMPLATE, HEADS_TEMPLATE, JOBS_TEMPLATE):
        whole_bodies[name] = rendered.body("index template", name)["template"]
    for name, whole in whole_bodies.items():
        body = {"index_patterns": [f"{name}-simulated-*"], "priority": 1, "template": whole}
        try:
            cluster.request("POST", "/_index_template/_simulate", body=body)
        except StoreRequestError as error:
            problems.append(f"index template {name}: {error.detail}")
    problems += _simulate_ingest(cluster, rendered)
    others = cluster.request("GET", "/_index_template")["index_templates"]
    examples = {
        INDEX_TEMPLATE: FIRST_INDEX,
        QUERY_LOG_TEMPLATE: f"{QUERY_LOG_TEMPLATE}-2026.01",
        KEYS_TEMPLATE: KEYS_TEMPLATE,
        HEADS_TEMPLATE: HEADS_TEMPLATE,
        JOBS_TEMPLATE: JOBS_TEMPLATE,
    }
    for name, index in examples.items():
        problems += _overruled(others, name, index, rendered.body("index template", name)["priority"])
    return problems


def _overruled(others: list[Json], name: str, index: str, priority: int) -> Iterator[str]:
    """Yield the templates that `index` would get instead of our `name`, in words."""
    for item in others:
        other = item["index_template"]
        matches = any(fnmatchcase(index, pattern) for pattern in other["index_patterns"])
        if item["name"] != name and matches and int(other.get("priority") or 0) > priority:
            yield (
                f"index template {item['name']} (priority {other['priority']}) also matches {index} and would be "
                f"used instead of {name} (priority {priority}): narrow its patterns or lower its priority"
            )


def export(rendered: RenderedResources, folder: Path) -> list[Path]:
    """Write each resource as it would be applied, ready for curl, and the sequence of calls; return
    the files written.
    """
    written = []
    calls = ["#!/bin/sh", "# curl options such as -u user:password --cacert ca.pem go into CURL_OPTIONS", "set -e"]
    calls += ['cd "$(dirname "$0")"', ': "${OPENSEARCH:?the URL of the cluster}"']
    files = [(item.kind, item.name, item.path, item.body) for item in rendered.resources]
    files.append(("index", FIRST_INDEX, f"/{FIRST_INDEX}", rendered.first_index))
    files.append(("index", HEADS_INDEX, f"/{HEADS_INDEX}", {}))  # its template has everything
    for kind, name, url, body in files:
        path = folder / kind.replace(" ", "_") / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n")
        written.append(path)
        calls.append(
            f"curl -fsS $CURL_OPTIONS -X PUT -H 'Content-Type: application/json' \"$OPENSEARCH{url}\" "
            f"--data-binary @{path.relative_to(folder)}"
        )
    script = folder / "apply.sh"
    script.write_text("\n".join(calls) + "\n", encoding="utf-8")
    return [*written, script]


def _bodies(cluster: Cluster, kind: str) -> dict[str, Json]:
    """Return the bodies of our resources in the cluster, by name. A pattern returns existing ones; a list requires all.

    The coordinating node answers from its own copy of the cluster's state, so that it does not wait for an unavailable
    cluster manager; for pipelines there is no such parameter, but the state contains them.
    """
    if kind in _IN_STATE:
        section = _IN_STATE[kind]
        params = {"local": "true", "filter_path": f"metadata.{section}.pipeline"}
        state = cluster.request("GET", "/_cluster/state/metadata", params=params)
        pipelines = state.get("metadata", {}).get(section, {}).get("pipeline", ())
        return {item["id"]: item["config"] for item in pipelines if item["id"].startswith("braid-")}
    answer, key = find(cluster, f"{ENDPOINTS[kind]}/braid-*", params={"local": "true"}), _IN_LISTING[kind]
    return {item["name"]: item[key] for item in answer[f"{key}s"]} if answer is not None else {}


def _alias_drift(live: LiveIndexes) -> Iterator[Drift]:
    for alias in (READ_ALIAS, WRITE_ALIAS):
        if alias in live.all_indexes:
            yield Drift("alias", alias, "", "an alias", "an index of that name")
    if READ_ALIAS not in live.all_indexes and not live.indexes:
        yield Drift("alias", READ_ALIAS, "", "present", MISSING)
    elif len(live.write_indexes) != 1:
        yield Drift("alias", WRITE_ALIAS, "is_write_index", "one index", live.write_indexes or MISSING)
    elif hidden := live.hidden_write_index:
        yield Drift("alias", READ_ALIAS, "indexes", sorted([*live.indexes, hidden]), sorted(live.indexes))


def _index_drift(live: LiveIndexes, rendered: RenderedResources) -> Iterator[Drift]:
    """Yield differences in fields and settings of the indexes behind the aliases; additional ones do not matter.

    Nor do missing ones that searches of an older Braid's index do not need (`read_only` names those indexes).
    """
    template = compose(rendered)
    mapping = in_one_spelling(flatten(template["mappings"]))
    settings = {name: value for name, value in settings_fields(template["settings"]).items() if name not in _FREE}
    for name in dict.fromkeys([*live.indexes, *live.write_indexes]):
        item = live.all_indexes[name]
        found = settings_fields(item["settings"])
        if found.get(_SIMILARITY) == "LegacyBM25":
            found[_SIMILARITY] = "BM25"  # with the factor k1 + 1: an operator's choice (docs/upgrading.md)
        drifts = [
            *shortfalls("index", name, mapping, in_one_spelling(flatten(item.get("mappings", {})))),
            *shortfalls("index", name, settings, found),
        ]
        found_mapping = item.get("mappings", {})
        if _OLDEST <= _mapping_version(found_mapping) < _mapping_version(template["mappings"]):
            drifts = [drift for drift in drifts if not _is_of_age(drift)]
        if languages.languages_of_index(found_mapping) != languages.languages_of_index(template["mappings"]):
            drifts = [drift for drift in drifts if not drift.field.startswith(_OF_LANGUAGES)]
        yield from (_with_settings(drift) if drift.field == _EMBEDDING_MODEL else drift for drift in drifts)
        if _THRESHOLD not in settings and found.get(_THRESHOLD) == _NO_GRAPH:
            yield Drift("index", name, _THRESHOLD, _DEFAULT, _NO_GRAPH)


def _with_settings(drift: Drift) -> Drift:
    """Return the drift of an index's embedding model with the settings that serve the index as it is."""
    if not isinstance(drift.found, str) or drift.found == MISSING:
        return drift
    model, precision = split_name(drift.found)
    remedy = (
        f"An index keeps the model that it names: BRAID_EMBEDDING_MODEL={model} BRAID_EMBEDDING_PRECISION={precision} "
        f"serves this one; for the other model, ingest the sources into a new store"
    )
    return replace(drift, remedy=remedy)


def _mapping_version(mappings: Json) -> int:
    """Return the version of the fields' template in the index's mapping; 0 if unknown."""
    version = mappings.get("_meta", {}).get("version", 0)
    return version if isinstance(version, int) else 0


def _is_of_age(drift: Drift) -> bool:
    """Return whether an index lacks this only because it is older."""
    if drift.field == _VERSION:
        return True
    return drift.found == MISSING and any(
        drift.field == added or drift.field.startswith(f"{added}.") for added in _SINCE_OLDEST
    )


def _is_adjusted(drift: Drift) -> bool:
    """Return whether `apply` fixes this difference of an existing index."""
    added = drift.found == MISSING and drift.field.startswith(tuple(f"properties.{name}." for name in ADDED_FIELDS))
    return added or drift.field in _ADJUSTABLE


def _model_drift(cluster: Cluster, rendered: RenderedResources) -> Iterator[Drift]:
    if rendered.variant != "faiss-ivfpq":
        return
    model = find(cluster, f"/_plugins/_knn/models/{IVFPQ_MODEL}")
    if model is None:
        yield Drift("trained model", IVFPQ_MODEL, "", "present", MISSING)
        return
    expected = {"state": "created", "dimension": str(rendered.dimension)}
    found = {field: str(model.get(field, MISSING)) for field in expected}
    yield from differences("trained model", IVFPQ_MODEL, expected, found)


def _refuse_unfit(cluster: Cluster, live: LiveIndexes, rendered: RenderedResources) -> None:
    """Raise StoreNotReady for differences that `apply` can't or must not fix."""
    standing = [
        *_model_drift(cluster, rendered),
        *(drift for drift in _index_drift(live, rendered) if not _is_adjusted(drift)),
    ]
    if standing:
        more = f" (and {len(standing) - 1} more)" if len(standing) > 1 else ""
        remedy = (
            "train it first (docs/store.md)"
            if standing[0].kind == "trained model"
            else "this can't be changed in an index: use its settings, or create a new index "
            "(another BRAID_DATA_DIR for `braid up`, or `braid reindex`: docs/store.md)"
        )
        raise StoreNotReady(f"{standing[0]}{more}; {remedy}")
    for name in (READ_ALIAS, WRITE_ALIAS):
        if name in live.all_indexes:
            raise StoreNotReady(
                f"{name} is an index, but must be an alias (it was written before the alias existed): "
                "move its content elsewhere and delete it"
            )
    if not live.indexes and FIRST_INDEX in live.all_indexes:
        raise StoreNotReady(
            f"index {FIRST_INDEX} exists, but the alias {READ_ALIAS} does not name it; "
            "put the aliases back (docs/store.md) or delete the index"
        )
    if live.indexes and not live.has_heads and read_only(live, rendered) is None and _holds_passages(cluster):
        raise StoreNotReady(
            f"index {HEADS_INDEX} is missing although there are passages, which can't be shown without it: "
            "run `braid heads build`"
        )
    if live.indexes and not live.write_indexes and len(live.indexes) > 1:
        raise StoreNotReady(
            f"alias {WRITE_ALIAS} is missing and {READ_ALIAS} names {len(live.indexes)} indexes: "
            "add it to the index to write (docs/store.md)"
        )
    if len(live.write_indexes) > 1:
        raise StoreNotReady(
            f"alias {WRITE_ALIAS} names {', '.join(live.write_indexes)}: set is_write_index on one of them"
        )


def _holds_passages(cluster: Cluster) -> bool:
    return bool(cluster.request_all_shards(f"/{READ_ALIAS}/_count", {"query": {"match_all": {}}})["count"])


def _adjust_indexes(cluster: Cluster, live: LiveIndexes, rendered: RenderedResources) -> Iterator[Change]:
    wrong: dict[str, dict[str, Any]] = {}
    lacking: dict[str, Json] = {}
    known = compose(rendered)["mappings"]["properties"]
    for drift in _index_drift(live, rendered):
        if drift.field not in _ADJUSTABLE:
            name = drift.field.split(".")[1]
            lacking.setdefault(drift.name, {})[name] = known[name]
            continue
        value = None if drift.expected in {_DEFAULT, UNEXPECTED} else drift.expected
        wrong.setdefault(drift.name, {})[drift.field] = value
    for name, fields in lacking.items():
        cluster.request("PUT", f"/{name}/_mapping", body={"properties": fields})
        yield Change("index fields", name, "updated")
    for name, settings in wrong.items():
        cluster.request("PUT", f"/{name}/_settings", body=settings)
        yield Change("index settings", name, "updated")
    if not live.write_indexes:
        action = {"add": {"index": next(iter(live.indexes)), "alias": WRITE_ALIAS, "is_write_index": True}}
        cluster.request("POST", "/_aliases", body={"actions": [action]})
        yield Change("alias", WRITE_ALIAS, "created")
    if hidden := live.hidden_write_index:
        cluster.request("POST", "/_aliases", body={"actions": [{"add": {"index": hidden, "alias": READ_ALIAS}}]})
        yield Change("alias", READ_ALIAS, "updated")


def _simulate_ingest(cluster: Cluster, rendered: RenderedResources) -> Iterator[str]:
    """Run the pipeline on a valid passage and on one without text."""
    pipeline = rendered.body("ingest pipeline", INGEST_PIPELINE)
    passages = [{"text": "a passage", "topic_tags": [" B ", "a", ""]}, {"text": " "}]
    body = {"pipeline": pipeline, "docs": [{"_source": passage} for passage in passages]}
    try:
        good, blank = cluster.request("POST", "/_ingest/pipeline/_simulate", body=body)["docs"]
    except StoreRequestError as error:
        yield f"ingest pipeline {INGEST_PIPELINE}: {error.detail}"
        return
    source = good.get("doc", {}).get("_source", {})
    if source.get("topic_tags") != ["a", "b"] or "ingested_at" not in source:
        yield f"ingest pipeline {INGEST_PIPELINE}: a valid passage is not normalised and stamped"
    if "error" not in blank:
        yield f"ingest pipeline {INGEST_PIPELINE}: a passage without text is not rejected"
