"""The base address of an OpenAI-compatible API."""

from __future__ import annotations

import pytest

from app.addresses import openai_base


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("http://vllm:8000", "http://vllm:8000/v1"),
        ("http://127.0.0.1:11434/", "http://127.0.0.1:11434/v1"),
        ("https://api.example/v1/", "https://api.example/v1"),
        ("https://api.example/v1beta", "https://api.example/v1beta"),
        ("https://api.example/openai", "https://api.example/openai/v1"),
        ("https://api.example/v1/chat/completions", "https://api.example/v1"),
        ("https://api.example/v1/embeddings", "https://api.example/v1"),
    ],
)
def test_the_version_is_added_where_there_is_none(given: str, base: str) -> None:
    assert openai_base(given) == base
