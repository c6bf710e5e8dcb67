"""No password in an address is printed, whether clients can read the address or not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.addresses import is_address, mask_passwords
from app.config import SETTINGS, load_settings
from app.errors import ConfigurationError

WORD = "s3cretw0rd"
GOOD = [f"{{scheme}}://me:{WORD}@127.0.0.1:9", f"{{scheme}}://{WORD}@127.0.0.1:9/path"]
"""Of a host where nobody listens; a user alone is a token."""
BAD = [
    f"{{scheme}}://me:{WORD}/{WORD}@127.0.0.1:9",
    f"{{scheme}}://me:{WORD}@127.0.0.1:port",
    f"{{scheme}}://me:{WORD},{WORD}@127.0.0.1:9,{{scheme}}://you:{WORD}#@127.0.0.1:9",
    f"{{scheme}}://me:{WORD}@",
    f"{{scheme}}://me:{WORD}@[::1",
    f"ftp://me:{WORD}@127.0.0.1:9",
    f"{{scheme}}//me:{WORD}@127.0.0.1:9",
    f"me:{WORD}@127.0.0.1:9",
    f"{WORD}@127.0.0.1:9",
]
ADDRESSES = {
    "opensearch_url": "http",
    "redis_url": "redis",
    "embedding_url": "http",
    "llm_url": "http",
    "reranker_url": "http",
    "jwt_jwks_url": "http",
    "url": "http",
}
COMMANDS = (
    ["doctor"],
    ["doctor", "--json"],
    ["templates", "diff"],
    ["templates", "apply"],
    ["keys", "list"],
    ["search", "a query"],
    ["ask", "a question"],
    ["ingest", __file__],
    ["serve"],
)


def test_every_setting_that_is_an_address_is_looked_at() -> None:
    fields = {name for name in SETTINGS if name == "url" or name.endswith("_url")}
    assert fields == set(ADDRESSES)


@pytest.mark.parametrize("shape", [*GOOD, *BAD])
@pytest.mark.parametrize("name", ADDRESSES)
def test_settings_are_refused_and_shown_without_passwords(name: str, shape: str) -> None:
    more = {"jwt_issuer": "i", "jwt_audience": "a"} if name == "jwt_jwks_url" else {}
    value = shape.format(scheme=ADDRESSES[name])
    try:
        shown = repr(load_settings(**{name: value, **more}))
        assert shape in GOOD
    except ConfigurationError as error:
        assert shape in BAD
        shown = f"{error} {error.detail} {error.__cause__}"
        assert f"BRAID_{name.upper()}" in shown
    assert WORD not in shown


@pytest.mark.parametrize("shape", [*GOOD, *BAD])
def test_what_is_masked_keeps_the_host(shape: str) -> None:
    url = shape.format(scheme="https")
    assert WORD not in mask_passwords(f"could not ask {url} for it")
    assert mask_passwords(url).endswith(url.rpartition("@")[2])
    assert mask_passwords("https://127.0.0.1:9200/path") == "https://127.0.0.1:9200/path"
    if shape in GOOD:
        assert is_address(url, ("https",))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_prints_one(command: list[str], tmp_path: Path, model_folder: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("BRAID_")}
    env |= {"BRAID_DATA_DIR": str(tmp_path), "BRAID_EMBEDDING_PATH": str(model_folder), "BRAID_KEYS_SECRET": "k" * 32}
    env |= {"BRAID_JWT_ISSUER": "i", "BRAID_JWT_AUDIENCE": "a", "COLUMNS": "500"}
    for name, scheme in ADDRESSES.items():
        env[f"BRAID_{name.upper()}"] = GOOD[0].format(scheme=scheme)
    if command == ["serve"]:
        env["BRAID_OPENSEARCH_URL"] = BAD[0].format(scheme="http")  # else it would serve
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *command], env=env, capture_output=True, text=True, check=False, timeout=300
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert said.strip()
    assert "Traceback" not in said
    assert WORD not in said
