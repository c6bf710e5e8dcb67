"""Which model: the folder its files lie in, and the prefixes it was trained with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.config import Settings
from app.errors import ConfigurationError

MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class Prefixes:
    """What the model expects in front of a query and of a passage; empty for symmetric models."""

    query: str = ""
    passage: str = ""


NO_PREFIXES = Prefixes()
_BUILT_IN = {"e5-small-v2": Prefixes(query="query: ", passage="passage: ")}


def prefixes(settings: Settings) -> Prefixes:
    """The built-in prefixes of the model, each replaced by its setting where that is given."""
    own = _BUILT_IN.get(settings.embedding_model, NO_PREFIXES)
    query, passage = settings.embedding_query_prefix, settings.embedding_passage_prefix
    return Prefixes(own.query if query is None else query, own.passage if passage is None else passage)


def model_folder(settings: Settings) -> Path:
    """The folder with ``model.onnx`` and ``tokenizer.json``: ``embedding_path``, else the cache's.

    Raises:
        ConfigurationError: a file is missing there; says how to get it.
    """
    given = settings.embedding_path
    folder = settings.cache_dir / "models" / settings.embedding_id if given is None else given
    missing = [name for name in (MODEL_FILE, TOKENIZER_FILE) if not (folder / name).is_file()]
    if not missing:
        return folder
    if given is not None:
        raise ConfigurationError(f"BRAID_EMBEDDING_PATH={given}: no {' and no '.join(missing)} in that folder")
    if settings.embedding_precision == "fp16":
        remedy = f"make it with `python -m app.embedding.convert {settings.embedding_model}`"
    else:
        remedy = "run `braid up` once, which resolves it"
    raise ConfigurationError(
        f"the embedding model {settings.embedding_id!r} is not in the cache: {remedy}, "
        f"or name a folder with {MODEL_FILE} and {TOKENIZER_FILE} in BRAID_EMBEDDING_PATH"
    )
