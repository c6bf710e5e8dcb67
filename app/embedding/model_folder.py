"""The embedding model's files, and its rules: pooling, prefixes, length.

A setting comes first, then what the folder in `BRAID_EMBEDDING_PATH` says (`app.embedding.conventions`), then the row
of a built-in model of that name. What none of them says is asked for by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.config import Settings
from app.config.embedding_models import BUILT_IN, BuiltInModel
from app.embedding.conventions import Conventions, read_conventions
from app.errors import ConfigurationError
from reranker.runtime.model_files import MODEL_FILE, find_model_file, onnx_files

TOKENIZER_FILE = "tokenizer.json"
DEFAULT_MAX_TOKENS = 256
"""Of a folder that says nothing about it."""

NO_PREFIX = "none"
"""The value of a setting for a model without a prefix: an empty variable is one that is not set."""
TOKENIZER_MODEL = "all-MiniLM-L6-v2"
"""Built-in model whose tokenizer counts for an encoder elsewhere, unless its own is given. It makes more tokens of
words that it does not know, so that passages are cut shorter rather than longer."""


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Prefixes that the model expects before a query and a passage; empty for symmetric models."""

    query: str = ""
    passage: str = ""


NO_PREFIXES = Prefixes()


@dataclass(frozen=True, slots=True)
class ModelRules:
    """Rules that a model was trained with."""

    pooling: str | None
    """See `Conventions.pooling`."""
    prefixes: Prefixes
    max_tokens: int
    """Tokens of a text, special ones included."""


def model_folder(settings: Settings) -> Path:
    """Return the folder with ``tokenizer.json`` and the model: ``embedding_path``, else the one in the cache.

    Raises:
        ConfigurationError: a file is missing; the message has the remedy.
    """
    given = settings.embedding.path
    folder = settings.machine.cache_dir / "models" / settings.embedding.id if given is None else given
    if given is not None:
        model_file(settings, folder)
        if not (folder / TOKENIZER_FILE).is_file():
            raise ConfigurationError(
                f"BRAID_EMBEDDING_PATH={given}: no {TOKENIZER_FILE} in that folder; save the tokenizer in its fast form"
            )
        return folder
    if all((folder / name).is_file() for name in (MODEL_FILE, TOKENIZER_FILE)):
        return folder
    if settings.embedding.precision == "fp16":
        remedy = f"make it with `python -m app.embedding.convert {settings.embedding.model}`"
    else:
        remedy = "run `braid up` once, which resolves it"
    raise ConfigurationError(
        f"the embedding model {settings.embedding.id!r} is not in the cache: {remedy}, "
        f"or name a folder with {MODEL_FILE} and {TOKENIZER_FILE} in BRAID_EMBEDDING_PATH"
    )


def model_file(settings: Settings, folder: Path) -> str:
    """Return the path of the ONNX file in `folder`: ``embedding_file``, else ``model.onnx`` there or in ``onnx/``.

    Raises:
        ConfigurationError: there is none; the message names those that are there.
    """
    wanted = settings.embedding.file
    if name := find_model_file(folder, wanted):
        return name
    found = onnx_files(folder)
    missing = [wanted or MODEL_FILE]
    missing += [] if (folder / TOKENIZER_FILE).is_file() else [TOKENIZER_FILE]
    remedy = f"name one of {', '.join(found)} in BRAID_EMBEDDING_FILE" if found else "export the model to ONNX"
    raise ConfigurationError(f"BRAID_EMBEDDING_PATH={folder}: no {' and no '.join(missing)} in that folder: {remedy}")


def model_rules(settings: Settings, conventions: Conventions) -> ModelRules:
    """Return the rules of the configured model.

    Raises:
        ConfigurationError: nothing says which prefixes it needs; the message has the settings.
    """
    given = settings.embedding
    row = BUILT_IN.get(given.model)
    pooling = given.pooling or conventions.pooling or (row.pooling if row else None)
    tokens = given.max_tokens or conventions.max_tokens or (row.max_tokens if row else DEFAULT_MAX_TOKENS)
    return ModelRules(pooling, _prefixes(settings, conventions, row), tokens)


def folder_conventions(settings: Settings) -> Conventions:
    """Return what the folder in ``embedding_path`` says; nothing for a built-in model's, whose rules are in `BUILT_IN`.
    Raises ConfigurationError as `read_conventions`.
    """
    return Conventions() if settings.embedding.path is None else read_conventions(settings.embedding.path)


def _prefixes(settings: Settings, conventions: Conventions, row: BuiltInModel | None) -> Prefixes:
    given = settings.embedding
    said = (
        (given.query_prefix, conventions.query_prefix, row.query_prefix if row else None),
        (given.passage_prefix, conventions.passage_prefix, row.passage_prefix if row else None),
    )
    first = [next((text for text in texts if text is not None), None) for texts in said]
    names = ("BRAID_EMBEDDING_QUERY_PREFIX", "BRAID_EMBEDDING_PASSAGE_PREFIX")
    missing = [name for name, text in zip(names, first, strict=True) if text is None]
    if missing:
        where = f" in {given.path}" if given.path is not None else ""
        raise ConfigurationError(
            f"nothing says which prompts the model {given.model!r}{where} was trained with: set "
            f"{' and '.join(missing)} as its card says (`{NO_PREFIX}` for a model without), or put its "
            f"config_sentence_transformers.json with prompts `query` and `document` into the folder"
        )
    query, passage = ("" if text == NO_PREFIX else str(text) for text in first)
    return Prefixes(query, passage)


def tokenizer_folder(settings: Settings) -> Path:
    """Return the folder of the tokenizer that counts for an encoder elsewhere: ``embedding_path``, else that of
    `TOKENIZER_MODEL`.

    Raises:
        ConfigurationError: it has no ``tokenizer.json``; the message has the remedy.
    """
    given = settings.embedding.path
    folder = settings.machine.cache_dir / "models" / TOKENIZER_MODEL if given is None else given
    if (folder / TOKENIZER_FILE).is_file():
        return folder
    if given is not None:
        raise ConfigurationError(f"BRAID_EMBEDDING_PATH={given}: no {TOKENIZER_FILE} in that folder")
    raise ConfigurationError(
        f"no tokenizer to count with for BRAID_EMBEDDING_URL: name a folder with the model's {TOKENIZER_FILE} in "
        f"BRAID_EMBEDDING_PATH, or run `braid models fetch` once, which resolves that of {TOKENIZER_MODEL}"
    )
