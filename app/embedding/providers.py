"""ONNX Runtime session of the embedding model on the best available provider."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from app.errors import ConfigurationError
from reranker.runtime.session import (
    RUNTIME_ERRORS,
    Provider,
    ProviderUnusable,
    first_line,
    first_usable,
    provider_options,
    session_options,
)


def open_session(
    model: Path, *, wanted: Literal["auto", "cuda", "openvino", "cpu"], threads: int
) -> tuple[Any, Provider]:
    """Load `model`; return the session and its provider.

    Raises:
        ConfigurationError: the wanted provider is not usable on this machine, or the file is not an ONNX model.
    """
    try:
        return first_usable(model, wanted, session_options(threads), lambda name: [provider_options(name)])
    except RUNTIME_ERRORS as error:
        raise ConfigurationError(
            f"ONNX Runtime can't load {model.name}: {first_line(error)}; if it is not whole, fetch or export it again"
        ) from error
    except ProviderUnusable as error:
        raise ConfigurationError(f"BRAID_EMBEDDING_PROVIDER={wanted} {error}") from error
