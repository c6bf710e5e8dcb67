from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

Offsets = Callable[[str], list[tuple[int, int]]]


def words(text: str) -> list[tuple[int, int]]:
    """The trivial tokenizer: a token a word."""
    return [match.span() for match in re.finditer(r"\S+", text)]


@pytest.fixture(scope="session")
def minilm_offsets(model_folder: Path) -> Offsets:
    """The real model's own tokenizer."""
    tokenizer = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: tokenizer.encode(text, add_special_tokens=False).offsets


@pytest.fixture(params=["words", "minilm"])
def offsets(request: pytest.FixtureRequest) -> Offsets:
    return words if request.param == "words" else request.getfixturevalue("minilm_offsets")
