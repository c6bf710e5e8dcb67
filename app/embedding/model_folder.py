"""The embedding model's folder and prefixes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.config import Settings
from app.config.retrieval import EmbeddingSettings
from app.errors import ConfigurationError

MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Prefixes that the model expects before a query and a passage; empty for symmetric models."""

    query: str = ""
    passage: str = ""


NO_PREFIXES = Prefixes()
_BUILT_IN = {"e5-small-v2": Prefixes(query="query: ", passage="passage: ")}


def prefixes(embedding: EmbeddingSettings) -> Prefixes:
    """Return the model's built-in prefixes, each replaced by its setting if that is given."""
    own = _BUILT_IN.get(embedding.model, NO_PREFIXES)
    query, passage = embedding.query_prefix, embedding.passage_prefix
    return Prefixes(own.query if query is None else query, own.passage if passage is None else passage)


def model_folder(settings: Settings) -> Path:
    """Return the folder with ``model.onnx`` and ``tokenizer.json``: ``embedding_path``, else the one in the cache.

    Raises:
        ConfigurationError: a file is missing; the message has the remedy.
    """
    given = settings.embedding.path
    folder = settings.machine.cache_dir / "models" / settings.embedding.id if given is None else given
    missing = [name for name in (MODEL_FILE, TOKENIZER_FILE) if not (folder / name).is_file()]
    if not missing:
        return folder
    if given is not None:
        raise ConfigurationError(f"BRAID_EMBEDDING_PATH={given}: no {' and no '.join(missing)} in that folder")
    if settings.embedding.precision == "fp16":
        remedy = f"make it with `python -m app.embedding.convert {settings.embedding.model}`"
    else:
        remedy = "run `braid up` once, which resolves it"
    raise ConfigurationError(
        f"the embedding model {settings.embedding.id!r} is not in the cache: {remedy}, "
        f"or name a folder with {MODEL_FILE} and {TOKENIZER_FILE} in BRAID_EMBEDDING_PATH"
    )
