"""Conventions of sentence-transformers and `optimum-cli export onnx`: how a model pools, prompts and limits texts.

modules.json                        Transformer, Pooling, Normalize and others, in their order
1_Pooling/config.json               pooling_mode (since 5), or pooling_mode_..._tokens
config_sentence_transformers.json   prompts, default_prompt_name, similarity_fn_name
sentence_bert_config.json           max_seq_length, do_lower_case
tokenizer_config.json               model_max_length
config.json                         max_position_embeddings, vocab_size, hidden_size
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import ConfigurationError

MODULES_FILE = "modules.json"
PROMPTS_FILE = "config_sentence_transformers.json"
LENGTH_FILE = "sentence_bert_config.json"
TOKENIZER_SETTINGS_FILE = "tokenizer_config.json"
CONFIG_FILE = "config.json"

_POOLING_FOLDER = "1_Pooling"
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    # the mean times a number, which unit length takes away again
    "pooling_mode_mean_sqrt_len_tokens": "mean",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_PASSAGE_PROMPTS = ("document", "passage", "corpus")
_UNLIMITED = 1_000_000
"""transformers writes 1e30 where a tokenizer has no limit."""


@dataclass(frozen=True, slots=True)
class Conventions:
    """Statements of the files; None where they make none."""

    pooling: str | None = None
    """`mean`, `cls`, or something that only a model which pools by itself can do, such as `lasttoken` or
    `mean + Dense`."""
    query_prefix: str | None = None
    passage_prefix: str | None = None
    max_tokens: int | None = None
    dimension: int | None = None
    """Width of the token vectors."""
    vocabulary: int | None = None
    """Rows of the table of words."""


def read_conventions(folder: Path) -> Conventions:
    """Read what the files of `folder` say.

    Raises:
        ConfigurationError: a file is no JSON object, or the model wants what Braid can't do: another measure than the
            cosine, prompts that don't enter the mean, lower case before the tokenizer.
    """
    config, lengths = _read(folder / CONFIG_FILE), _read(folder / LENGTH_FILE)
    if lengths.get("do_lower_case"):
        raise ConfigurationError(
            f"{LENGTH_FILE} in {folder} says do_lower_case: make the tokenizer lower texts (a normalizer in "
            f"tokenizer.json), and remove it there"
        )
    pooling = _read(folder / _POOLING_FOLDER / CONFIG_FILE)
    prompts = _read(folder / PROMPTS_FILE)
    query, passage = _prompts(prompts)
    return Conventions(
        pooling=_pooling(folder, pooling),
        query_prefix=query,
        passage_prefix=passage,
        max_tokens=_max_tokens(lengths, _read(folder / TOKENIZER_SETTINGS_FILE), config),
        dimension=_number(config, "hidden_size"),
        vocabulary=_number(config, "vocab_size"),
    )


def _pooling(folder: Path, config: dict[str, Any]) -> str | None:
    modules = _modules(folder)
    measure = _read(folder / PROMPTS_FILE).get("similarity_fn_name") or "cosine"
    if measure != "cosine" and modules and "Normalize" not in modules:
        raise ConfigurationError(
            f"{PROMPTS_FILE} in {folder} says similarity_fn_name {measure!r}, and {MODULES_FILE} has no Normalize: "
            f"Braid compares by cosine, so take a model that was trained for it"
        )
    if not config:
        return None
    if config.get("include_prompt") is False:
        raise ConfigurationError(
            f"{_POOLING_FOLDER}/{CONFIG_FILE} in {folder} says include_prompt false: Braid pools over prompt and text, "
            f"so take a model that does"
        )
    modes = [name for flag, name in _FLAGS.items() if config.get(flag)]
    modes = [str(config["pooling_mode"])] if "pooling_mode" in config else modes
    others = [name for name in modules if name not in {"Transformer", "Pooling", "Normalize"}]
    return " + ".join([*modes, *others]) or None


def _modules(folder: Path) -> list[str]:
    path = folder / MODULES_FILE
    if not path.is_file():
        return []
    found = _load(path)
    if not isinstance(found, list) or not all(isinstance(item, dict) and "type" in item for item in found):
        raise ConfigurationError(f"{MODULES_FILE} in {folder} is not a list of modules with a type: copy it again")
    return [str(item["type"]).rpartition(".")[2] for item in found]


def _prompts(config: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return the prefixes of queries and passages; None where prompts have other names than those of retrieval."""
    if not config:
        return None, None
    prompts = config.get("prompts") or {}
    default = prompts.get(config.get("default_prompt_name"), None if prompts else "")
    passage = next((prompts[name] for name in _PASSAGE_PROMPTS if name in prompts), default)
    # a model with a prompt for queries alone has none for passages
    return prompts.get("query", default), "" if passage is None and "query" in prompts else passage


def _max_tokens(lengths: dict[str, Any], tokenizer: dict[str, Any], config: dict[str, Any]) -> int | None:
    given = _number(lengths, "max_seq_length")
    if given is not None:
        return given
    limits = (_number(tokenizer, "model_max_length"), _number(config, "max_position_embeddings"))
    return min((limit for limit in limits if limit is not None and limit < _UNLIMITED), default=None)


def _number(config: dict[str, Any], name: str) -> int | None:
    value = config.get(name)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


def _read(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one if there is no such file."""
    if not path.is_file():
        return {}
    found = _load(path)
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path} is not a JSON object: copy it again")
    return found


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} can't be read as JSON ({error}): copy it again") from error
