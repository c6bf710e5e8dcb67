"""The shipped files as this service needs them on the cluster: file plus the few settings that change them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from app.assets import asset_folder
from app.config import Settings
from app.errors import ConfigurationError

READ_ALIAS = "braid-passages"
WRITE_ALIAS = "braid-passages-write"
FIRST_INDEX = "braid-passages-000001"
INDEX_TEMPLATE = "braid-passages"
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

    def body(self, kind: str, name: str) -> Json:
        return next(item.body for item in self.resources if (item.kind, item.name) == (kind, name))


def render(settings: Settings, variant: str, dimension: int) -> Rendered:
    """Read the shipped files and put the settings in.

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
        ("index template", "mappings", f"{template}/braid-passages.json"),
    ]
    resources = []
    for kind, folder, file in files:
        body = read_file(asset_folder(folder) / file)
        name = Path(file).stem
        _substitute(name, body, settings, dimension)
        resources.append(Resource(kind, name, body, f"{folder}/{file}"))
    return Rendered(tuple(resources), variant, dimension, settings.embedding_id)


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


def _substitute(name: str, body: Json, settings: Settings, dimension: int) -> None:
    if name == "braid-settings":
        index = body["template"]["settings"]["index"]
        index["number_of_shards"] = settings.shards
        index["number_of_replicas"] = settings.replicas
    elif name == "braid-fields":
        body["template"]["mappings"]["_meta"] |= {
            "embedding_model": settings.embedding_id,
            "dimension": dimension,
        }
    elif name.startswith("braid-vector-"):
        embedding = body["template"]["mappings"]["properties"]["embedding"]
        if "dimension" in embedding:  # a trained model knows its own
            embedding["dimension"] = dimension
        if "compression_level" in embedding:
            embedding["compression_level"] = settings.on_disk_compression
    elif name == "braid-hybrid-linear":
        processor = body["phase_results_processors"][0]["normalization-processor"]
        weights = [round(1 - settings.alpha, 6), round(settings.alpha, 6)]
        processor["combination"]["parameters"]["weights"] = weights
    elif name == "braid-hybrid-rrf":
        processor = body["phase_results_processors"][0]["score-ranker-processor"]
        processor["combination"]["rank_constant"] = settings.rrf_rank_constant
