"""What is switched on for one request, as the feature flags say; evaluated by `gateway.flags`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Features:
    """One field a flag; `variants` is what the answer names: flag -> variant."""

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
"""The flags as they ship."""
