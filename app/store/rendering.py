"""The shipped files as this service needs them on the cluster: file plus the few settings that change them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from app.assets import asset_folder
from app.config import Settings
from app.errors import ConfigurationError
from app.store.client import READ_ALIAS, WRITE_ALIAS
from app.tuning import SHIPPED, Tuning

FIRST_INDEX = "braid-passages-000001"
INDEX_TEMPLATE = "braid-passages"
QUERY_LOG_TEMPLATE = "braid-queries"
KEYS_TEMPLATE = "braid-keys"
JOBS_TEMPLATE = "braid-jobs"
HEADS_TEMPLATE = "braid-heads"
FIELDS_TEMPLATE = "braid-fields"
_TUNED = 1000
"""Versions of a tuned search pipeline begin here: 1000 and the tuning's own."""
INGEST_PIPELINE = "braid-passages"
TOKEN_VECTORS = "braid-token-vectors"  # noqa: S105 - no secret
"""The component template that `BRAID_TOKEN_VECTORS=false` leaves out."""
VARIANTS = ("faiss-hnsw", "faiss-hnsw-fp16", "faiss-ivfpq", "faiss-on-disk", "faiss-exact", "lucene-hnsw")
IVFPQ_MODEL = "braid-ivfpq"

Json = dict[str, Any]

ENDPOINTS = {
    "ingest pipeline": "/_ingest/pipeline",
    "search pipeline": "/_search/pipeline",
    "component template": "/_component_template",
    "index template": "/_index_template",
}
"""The kinds of resource, in the order in which they must be applied."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One file: its kind, its name on the cluster, its body, and where it lies below the assets."""

    kind: str
    name: str
    body: Json
    file: str

    @property
    def path(self) -> str:
        return f"{ENDPOINTS[self.kind]}/{self.name}"


@dataclass(frozen=True, slots=True)
class Rendered:
    """All resources for one vector variant, dimension and embedding model."""

    resources: tuple[Resource, ...]
    variant: str
    dimension: int
    embedding_model: str
    tuning: Tuning = SHIPPED

    @property
    def first_index(self) -> Json:
        """Body of the first index: everything but the aliases comes from the templates."""
        return read_file(asset_folder("mappings") / "indexes" / f"{FIRST_INDEX}.json")

    def of_kind(self, kind: str) -> Iterator[Resource]:
        return (item for item in self.resources if item.kind == kind)

    def body(self, kind: str, name: str) -> Json:
        return next(item.body for item in self.resources if (item.kind, item.name) == (kind, name))


def render(settings: Settings, variant: str, dimension: int, tuning: Tuning = SHIPPED) -> Rendered:
    """Read the shipped files and put the settings and what was tuned in.

    Raises:
        ConfigurationError: an unknown variant, or a file that is not what it should be.
    """
    if variant not in VARIANTS:
        raise ConfigurationError(f"vector variant {variant!r} is unknown; there are {', '.join(VARIANTS)}")
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
        if name == TOKEN_VECTORS and not settings.token_vectors:
            continue
        body = read_file(asset_folder(folder) / file)
        _substitute(name, body, settings, dimension, tuning)
        resources.append(Resource(kind, name, body, f"{folder}/{file}"))
    return Rendered(tuple(resources), variant, dimension, settings.embedding_id, tuning)


def composed(rendered: Rendered) -> Json:
    """Settings and mappings as an index of passages gets them when OpenSearch puts the component templates together."""
    whole: Json = {"settings": {}, "mappings": {}}
    for name in rendered.body("index template", INDEX_TEMPLATE)["composed_of"]:
        _merge(whole, rendered.body("component template", name)["template"])
    return whole


def offline_problems(rendered: Rendered) -> list[str]:
    """What is wrong with the files in themselves and with what they say of each other, in words."""
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


def _whole_problems(rendered: Rendered) -> Iterator[str]:
    """Names that one part uses and another must define."""
    whole = composed(rendered)
    index, mappings = whole["settings"]["index"], whole["mappings"]
    if index.get("default_pipeline") not in {item.name for item in rendered.of_kind("ingest pipeline")}:
        yield f"default_pipeline {index.get('default_pipeline')!r} is no ingest pipeline of ours"
    if mappings.get("dynamic") != "strict":
        yield "mappings.dynamic is not strict"
    for field, definition in mappings["properties"].items():
        if definition.get("copy_to", field) not in mappings["properties"]:
            yield f"field {field}: copy_to {definition['copy_to']!r} is no field"
        if "similarity" in definition and definition["similarity"] not in index["similarity"]:
            yield f"field {field}: similarity {definition['similarity']!r} is not defined"
        if "analyzer" in definition and definition["analyzer"] not in index["analysis"]["analyzer"]:
            yield f"field {field}: analyzer {definition['analyzer']!r} is not defined"
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
    """A shipped JSON file.

    Raises:
        ConfigurationError: not JSON, or not an object.
    """
    try:
        body = orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path.name} can't be read as JSON ({error}): reinstall Braid") from error
    if not isinstance(body, dict):
        raise ConfigurationError(f"{path.name} is no JSON object: reinstall Braid")
    return body


def _substitute(name: str, body: Json, settings: Settings, dimension: int, tuning: Tuning) -> None:
    if name == "braid-settings":
        index = body["template"]["settings"]["index"]
        index["number_of_shards"] = settings.shards
        index["number_of_replicas"] = settings.replicas
    elif name == FIELDS_TEMPLATE:
        body["template"]["mappings"]["_meta"] |= {
            "embedding_model": settings.embedding_id,
            "dimension": dimension,
        }
        index = body["template"]["settings"]["index"]
        index["similarity"]["braid_bm25"] |= {"k1": tuning.bm25.k1, "b": tuning.bm25.b}
        index["analysis"]["analyzer"]["braid_text"]["type"] = settings.language
    elif name == INDEX_TEMPLATE and "composed_of" in body and not settings.token_vectors:
        body["composed_of"].remove(TOKEN_VECTORS)
    elif name.startswith("braid-vector-"):
        embedding = body["template"]["mappings"]["properties"]["embedding"]
        if "dimension" in embedding:  # a trained model knows its own
            embedding["dimension"] = dimension
        if "compression_level" in embedding:
            embedding["compression_level"] = settings.on_disk_compression
    elif name == "braid-hybrid-linear":
        processor = body["phase_results_processors"][0]["normalization-processor"]
        alpha = tuning.native_alpha if settings.alpha is None else settings.alpha
        processor["combination"]["parameters"]["weights"] = [round(1 - alpha, 6), round(alpha, 6)]
        if tuning.version:
            body["version"] = tuning.version + _TUNED
            body["description"] += f" (tuning {tuning.version})"
    elif name == "braid-hybrid-rrf":
        processor = body["phase_results_processors"][0]["score-ranker-processor"]
        processor["combination"]["rank_constant"] = settings.rrf_rank_constant
