"""Building blocks of settings: the base class of sections, and the types of values."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, StringConstraints
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.addresses import is_address, mask_passwords
from app.languages import parse_languages

VectorVariant = Literal["faiss-hnsw", "faiss-hnsw-fp16", "faiss-ivfpq", "faiss-on-disk", "faiss-exact", "lucene-hnsw"]
Language = Literal[
    "arabic", "armenian", "basque", "bengali", "brazilian", "bulgarian", "catalan", "cjk", "czech", "danish", "dutch",
    "english", "estonian", "finnish", "french", "galician", "german", "greek", "hindi", "hungarian", "indonesian",
    "irish", "italian", "latvian", "lithuanian", "norwegian", "persian", "portuguese", "romanian", "russian", "sorani",
    "spanish", "standard", "swedish", "thai", "turkish",
]  # fmt: skip
"""OpenSearch's language analyzers."""
Precision = Literal["fp32", "fp16", "int8"]
OpenSearchRelease = Literal["2.19", "3.6"]
"""Releases of OpenSearch that `braid up` assembles from Maven's artifacts."""
DEFAULT_RELEASE: OpenSearchRelease = "2.19"
TENANT_PATTERN = r"[A-Za-z0-9_.-]{1,64}"
Tenant = Annotated[str, StringConstraints(pattern=f"^{TENANT_PATTERN}$")]
_HTTP, _REDIS = ("http", "https"), ("redis", "rediss")
_QUOTED = "characters of a password other than letters and digits are written as %40, %2F and so on"
_ADDRESS = re.compile(r"https?://[^\s/,]+(/[^\s,]*)?")

_AFFECTS_NO_ANSWER = "affects no answer"
T = TypeVar("T")
Operational = Annotated[T, _AFFECTS_NO_ANSWER]
"""A value that does not affect answers. All other settings are part of the cache key of answers, so that a new setting
is included unless its field says otherwise."""


def _shell_words(value: str) -> str:
    shlex.split(value)  # raises ValueError
    return value


def _http_address(value: str) -> str:
    if not is_address(value, _HTTP):
        raise ValueError(f"it is not an address such as http://127.0.0.1:8000; {_QUOTED}")
    return value


def _redis_address(value: str) -> str:
    if not is_address(value, _REDIS) and not value.startswith("unix://"):
        raise ValueError(f"it is not an address: write redis://host:port/number; {_QUOTED}")
    return value


def _http_addresses(value: str) -> str:
    """Return addresses separated by commas, each once, without blanks around them and slashes at their ends."""
    parts = [part.strip() for part in value.split(",")]
    for part in parts:
        if not _ADDRESS.fullmatch(part) or not is_address(part, _HTTP):
            raise ValueError(
                f"each must be an address such as http://127.0.0.1:9200; several are separated by commas; {_QUOTED}"
            )
    return ",".join(dict.fromkeys(part.rstrip("/") for part in parts))


def _languages(value: str) -> str:
    return ",".join(parse_languages(value))


Languages = Annotated[str, AfterValidator(_languages)]
"""Codes of languages separated by commas, each once."""
ShellWords = Annotated[str, AfterValidator(_shell_words)]
"""Words separated by blanks, with the quotes of a shell."""
HttpUrl = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_http_address)]
HttpUrls = Annotated[str, AfterValidator(_http_addresses)]
RedisUrl = Annotated[str, AfterValidator(_redis_address)]


class Section(BaseSettings):
    """Settings of one purpose.

    A field is the environment variable of the section's prefix and its name, in capitals, unless it has an alias. Its
    docstring is its description in docs/configuration.md, the section's docstring the text above the table.
    """

    model_config = SettingsConfigDict(
        env_prefix="BRAID_",
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, mask_passwords(value) if isinstance(value, str) else value


def affects_answers(field: FieldInfo) -> bool:
    """Return whether an answer may depend on the value of a section's field."""
    return _AFFECTS_NO_ANSWER not in field.metadata
