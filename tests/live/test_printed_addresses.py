"""What reaches its parts by addresses with passwords in them prints none: commands, answers, logs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.proxy import FaultyProxy, http_answer
from tests.service import running_service

pytestmark = pytest.mark.live

WORD = "s3cretw0rd"


def with_password(url: str) -> tuple[str, str]:
    """The address with a password in it, and that password; its own where it has one."""
    parts = urlsplit(url)
    if parts.password is not None:
        return url, parts.password
    return parts._replace(netloc=f"me:{WORD}@{parts.netloc}").geturl(), WORD


@pytest.mark.parametrize(
    "command", [["templates", "diff"], ["templates", "apply"], ["doctor"], ["doctor", "--json"], ["keys", "list"]]
)
def test_commands_that_reach_the_cluster(
    opensearch_url: str, model_folder: Path, tmp_path: Path, command: list[str]
) -> None:
    url, word = with_password(opensearch_url)
    env = {name: value for name, value in os.environ.items() if not name.startswith("BRAID_")}
    env |= {"BRAID_OPENSEARCH_URL": url, "BRAID_EMBEDDING_PATH": str(model_folder), "BRAID_DATA_DIR": str(tmp_path)}
    env |= {"BRAID_KEYS_SECRET": "k" * 32, "COLUMNS": "500"}
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *command], env=env, capture_output=True, text=True, check=False, timeout=300
    )
    said = done.stdout + done.stderr
    assert said.strip()
    assert word not in said
    if command[0] == "doctor":
        assert "***@" in said


def test_the_service_says_none_in_answers_and_in_its_log(valkey_url: str) -> None:
    with FaultyProxy(9) as part:
        part.fail("answer", answer=http_answer(b"<html><body>It works!</body></html>", "text/html"))
        address, _ = with_password(f"http://127.0.0.1:{part.port}")
        settings = {"opensearch_url": address, "llm_url": address, "reranker_url": address, "redis_url": valkey_url}
        settings |= {"jwt_jwks_url": f"{address}/keys", "jwt_issuer": "i", "jwt_audience": "a", "api_key": "k"}
        with running_service(**settings) as service, service.client() as client:
            heard = []
            for authorization in ("Bearer k", "Bearer a.b.c", "Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.e30.e30"):
                headers = {"Authorization": authorization}
                for path, body in (
                    ("/v1/search", {"query": "a"}),
                    ("/v1/answer", {"query": "a"}),
                    ("/v1/rerank", {"query": "a", "documents": ["b"]}),
                ):
                    heard.append(client.post(path, json=body, headers=headers).text)
                heard.append(client.get("/readyz", headers=headers).text)
            assert "did not answer like OpenSearch" in "".join(heard)
            assert WORD not in "".join(heard)
            assert WORD not in service.said
