"""Features enabled for one request, according to the feature flags; evaluated by `gateway.flags`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Features:
    """One field per flag; `variants` is part of the answer: flag -> variant."""

    lexical: bool = True
    vector: bool = True
    rerank: bool = True
    generation: bool = True
    response_cache: bool = True
    near_cache: bool = True
    embedding_cache: bool = True
    rerank_cache: bool = True
    early_exit: bool = False
    learned_fusion: bool = True
    variants: Mapping[str, str] = field(default_factory=dict)


ALL_ON = Features()
"""The default flags."""
