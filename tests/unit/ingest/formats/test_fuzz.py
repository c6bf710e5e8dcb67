"""Files with random damage are read or refused for a reason that is theirs: no parser fails or crashes on them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.config import load_settings
from app.errors import DocumentRejected
from app.ingest.formats import ParserPool
from tests.unit.ingest.formats.build import FILES, zip_of

SAMPLES = sorted(FILES.iterdir())
ODD = [b"", b"\0", b"\xff", b"<", b">", b'"', b"-1", b"9" * 400, b"f" * 40, b"inf", b"nan", b"0x", b"&#0;", b"<!--"]
ODD += [text.encode() for text in ("²", "٣", "\u2028", "\U000e0041", "0001-01-01T00:00:00+14:00", "é́́", "[[", "||")]


@pytest.fixture(scope="module")
def pool() -> Iterator[ParserPool]:
    with ParserPool(load_settings(ingest_parse_timeout_s=30.0).ingest, 1) as made:
        yield made


def refusal(pool: ParserPool, path: Path) -> DocumentRejected | None:
    try:
        pool.parse(path)
    except DocumentRejected as error:
        return error
    return None


def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` cut off, or with some bytes replaced by others, left out or repeated."""
    if draw(st.integers(0, 9)) == 0:
        return data[: draw(st.integers(min(1, len(data)), len(data)))]
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(data)))
        end = begin + draw(st.integers(0, 40))
        piece = draw(st.sampled_from(ODD) | st.binary(max_size=4) | st.just(data[begin:end] * 20))
        data = data[:begin] + piece + data[end:]
    return data


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A sample's extension, and the sample with some damage: an Office file's in one of its parts, or in its zip."""
    path = draw(st.sampled_from(SAMPLES))
    data = path.read_bytes()
    if data[:2] == b"PK" and draw(st.integers(0, 4)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        name = draw(st.sampled_from(sorted(parts)))
        parts[name] = (
            draw(st.sampled_from(sorted(parts.values()))) if draw(st.booleans()) else damaged(draw, parts[name])
        )
        return path.suffix, zip_of(parts, zipfile.ZIP_STORED)
    return path.suffix, damaged(draw, data)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=files())
def test_a_damaged_file_is_read_or_refused(pool: ParserPool, tmp_path: Path, file: tuple[str, bytes]) -> None:
    path = tmp_path / f"damaged{file[0]}"
    path.write_bytes(file[1])
    refused = refusal(pool, path)
    if refused is not None:
        assert refused.reason not in ("parser-failed", "too-slow", "out-of-memory"), refused.detail
        assert "crashed" not in refused.detail
        assert "nested" not in refused.detail
