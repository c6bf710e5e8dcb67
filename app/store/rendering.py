"""Rendering of the shipped files for this service: files with the few settings that change them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import orjson

from app.assets import asset_folder
from app.config import Settings
from app.config.section import VectorVariant
from app.errors import ConfigurationError
from app.store import languages
from app.store.client import READ_ALIAS, WRITE_ALIAS
from app.store.majors import OLDEST, Version, shipped_file
from app.tuning import SHIPPED, Tuning

FIRST_INDEX = "braid-passages-000001"
INDEX_TEMPLATE = "braid-passages"
QUERY_LOG_TEMPLATE = "braid-queries"
KEYS_TEMPLATE = "braid-keys"
JOBS_TEMPLATE = "braid-jobs"
HEADS_TEMPLATE = "braid-heads"
FIELDS_TEMPLATE = "braid-fields"
_TUNED = 1000
"""First version of tuned search pipelines: 1000 plus the tuning's own version."""
INGEST_PIPELINE = "braid-passages"
TOKEN_VECTORS = "braid-token-vectors"  # noqa: S105 - not a secret
"""The component template that `BRAID_TOKEN_VECTORS=false` omits."""
VARIANTS: tuple[str, ...] = get_args(VectorVariant)
IVFPQ_MODEL = "braid-ivfpq"

Json = dict[str, Any]

ENDPOINTS = {
    "ingest pipeline": "/_ingest/pipeline",
    "search pipeline": "/_search/pipeline",
    "component template": "/_component_template",
    "index template": "/_index_template",
}
"""The kinds of resource, in the order of application."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One file: its kind, its name on the cluster, its body, and its path below the assets."""

    kind: str
    name: str
    body: Json
    file: str

    @property
    def path(self) -> str:
        return f"{ENDPOINTS[self.kind]}/{self.name}"


@dataclass(frozen=True, slots=True)
class RenderedResources:
    """All resources for one vector variant, dimension, embedding model and version of OpenSearch."""

    resources: tuple[Resource, ...]
    variant: str
    dimension: int
    embedding_model: str
    tuning: Tuning = SHIPPED
    version: Version = OLDEST
    text_fields: Mapping[str, str] = field(default_factory=dict)
    """Language -> field of its analysis (`languages.text_fields`)."""

    @property
    def first_index(self) -> Json:
        """Return the body of the first index: everything but the aliases comes from the templates."""
        return read_file(asset_folder("mappings") / "indexes" / f"{FIRST_INDEX}.json")

    def of_kind(self, kind: str) -> Iterator[Resource]:
        return (item for item in self.resources if item.kind == kind)

    def body(self, kind: str, name: str) -> Json:
        return next(item.body for item in self.resources if (item.kind, item.name) == (kind, name))


def render(
    settings: Settings, variant: str, dimension: int, tuning: Tuning = SHIPPED, *, version: Version = OLDEST
) -> RenderedResources:
    """Read the shipped files and insert the settings and the tuning.

    Args:
        version: the cluster's oldest node's; some files differ from a later release on (`majors`).

    Raises:
        ConfigurationError: the variant is unknown, or a file is invalid.
    """
    if variant not in VARIANTS:
        raise ConfigurationError(f"vector variant {variant!r} is unknown; known variants: {', '.join(VARIANTS)}")
    template = "index_templates" if variant == "faiss-hnsw" else f"variants/{variant}"
    files = [
        ("ingest pipeline", "pipelines", "ingest/braid-passages.json"),
        ("search pipeline", "pipelines", "search/braid-hybrid-linear.json"),
        ("search pipeline", "pipelines", "search/braid-hybrid-rrf.json"),
        ("component template", "mappings", "component_templates/braid-settings.json"),
        ("component template", "mappings", "component_templates/braid-fields.json"),
        ("component template", "mappings", f"component_templates/braid-vector-{variant}.json"),
        ("component template", "mappings", f"component_templates/{TOKEN_VECTORS}.json"),
        ("index template", "mappings", f"{template}/braid-passages.json"),
        ("index template", "mappings", "index_templates/braid-queries.json"),
        ("index template", "mappings", "index_templates/braid-keys.json"),
        ("index template", "mappings", "index_templates/braid-jobs.json"),
        ("index template", "mappings", "index_templates/braid-heads.json"),
    ]
    resources = []
    for kind, folder, file in files:
        name = Path(file).stem
        if name == TOKEN_VECTORS and not settings.index.token_vectors:
            continue
        path = shipped_file(asset_folder(folder), file, version)
        body = read_file(path)
        _substitute(name, body, settings, dimension, tuning)
        resources.append(Resource(kind, name, body, f"{folder}/{path.relative_to(asset_folder(folder))}"))
    fields = languages.text_fields(settings.index)
    return RenderedResources(tuple(resources), variant, dimension, settings.embedding.id, tuning, version, fields)


def compose(rendered: RenderedResources) -> Json:
    """Return settings and mappings of an index of passages, as OpenSearch composes them from the
    component templates.
    """
    whole: Json = {"settings": {}, "mappings": {}}
    for name in rendered.body("index template", INDEX_TEMPLATE)["composed_of"]:
        _merge(whole, rendered.body("component template", name)["template"])
    return whole


def offline_problems(rendered: RenderedResources) -> list[str]:
    """Return problems of the files and of their references to each other, in words."""
    found: list[str] = []
    components = {item.name for item in rendered.of_kind("component template")}
    for item in rendered.resources:
        if item.kind.endswith("template"):
            meta = item.body.get("_meta", {})
            if meta.get("managed_by") != "braid" or not isinstance(meta.get("version"), int):
                found.append(f"{item.file}: _meta needs managed_by 'braid' and a whole-number version")
        elif not isinstance(item.body.get("version"), int):
            found.append(f"{item.file}: needs a whole-number version (pipelines take no _meta)")
        missing = [name for name in item.body.get("composed_of", []) if name not in components]
        found += [f"{item.file}: composed_of names {name}, which is not shipped" for name in missing]
    return found or [f"{rendered.variant}: {problem}" for problem in _whole_problems(rendered)]


def _whole_problems(rendered: RenderedResources) -> Iterator[str]:
    """Yield names that one part uses and another must define, but does not."""
    whole = compose(rendered)
    index, mappings = whole["settings"]["index"], whole["mappings"]
    if index.get("default_pipeline") not in {item.name for item in rendered.of_kind("ingest pipeline")}:
        yield f"default_pipeline {index.get('default_pipeline')!r} is not one of our ingest pipelines"
    if mappings.get("dynamic") != "strict":
        yield "mappings.dynamic is not strict"
    for name, definition in mappings["properties"].items():
        if definition.get("copy_to", name) not in mappings["properties"]:
            yield f"field {name}: copy_to {definition['copy_to']!r} is not a field"
        if "similarity" in definition and definition["similarity"] not in index["similarity"]:
            yield f"field {name}: similarity {definition['similarity']!r} is not defined"
        if "analyzer" in definition and definition["analyzer"] not in index["analysis"]["analyzer"]:
            yield f"field {name}: analyzer {definition['analyzer']!r} is not defined"
    embedding = mappings["properties"].get("embedding", {})
    if embedding.get("dimension", rendered.dimension) != mappings["_meta"]["dimension"]:
        yield f"embedding.dimension {embedding['dimension']} is not _meta.dimension {mappings['_meta']['dimension']}"
    if rendered.first_index["aliases"] != {READ_ALIAS: {}, WRITE_ALIAS: {"is_write_index": True}}:
        yield f"mappings/indexes/{FIRST_INDEX}.json does not name the aliases {READ_ALIAS} and {WRITE_ALIAS}"


def _merge(into: Json, more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def read_file(path: Path) -> Json:
    """Read a shipped JSON file.

    Raises:
        ConfigurationError: not JSON, or not an object.
    """
    try:
        body = orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path.name} can't be read as JSON ({error}): reinstall Braid") from error
    if not isinstance(body, dict):
        raise ConfigurationError(f"{path.name} is not a JSON object: reinstall Braid")
    return body


def _substitute(name: str, body: Json, settings: Settings, dimension: int, tuning: Tuning) -> None:
    if name == "braid-settings":
        index = body["template"]["settings"]["index"]
        index["number_of_shards"] = settings.index.shards
        index["number_of_replicas"] = settings.index.replicas
    elif name == FIELDS_TEMPLATE:
        body["template"]["mappings"]["_meta"] |= {
            "embedding_model": settings.embedding.id,
            "dimension": dimension,
        }
        index = body["template"]["settings"]["index"]
        index["similarity"]["braid_bm25"] |= {"k1": tuning.bm25.k1, "b": tuning.bm25.b}
        index["analysis"]["analyzer"]["braid_text"]["type"] = settings.index.language
        languages.add_to_template(body["template"], settings.index)
    elif name == INGEST_PIPELINE and "processors" in body:
        languages.add_to_pipeline(body, settings.index)
    elif name == TOKEN_VECTORS and languages.own_languages(settings.index):
        # of several lists of excluded fields the last one holds
        body["template"]["mappings"]["_source"]["excludes"].append(languages.OWN)
    elif name == INDEX_TEMPLATE and "composed_of" in body and not settings.index.token_vectors:
        body["composed_of"].remove(TOKEN_VECTORS)
    elif name.startswith("braid-vector-"):
        embedding = body["template"]["mappings"]["properties"]["embedding"]
        if "dimension" in embedding:  # a trained model knows its own dimension
            embedding["dimension"] = dimension
        if "compression_level" in embedding:
            embedding["compression_level"] = settings.index.on_disk_compression
    elif name == "braid-hybrid-linear":
        processor = body["phase_results_processors"][0]["normalization-processor"]
        alpha = tuning.native_alpha if settings.search.alpha is None else settings.search.alpha
        processor["combination"]["parameters"]["weights"] = [round(1 - alpha, 6), round(alpha, 6)]
        if tuning.version:
            body["version"] = tuning.version + _TUNED
            body["description"] += f" (tuning {tuning.version})"
    elif name == "braid-hybrid-rrf":
        processor = body["phase_results_processors"][0]["score-ranker-processor"]
        processor["combination"]["rank_constant"] = settings.search.rrf_rank_constant
