"""How long a stop may take, how many threads a worker has, and what is believed of a proxy."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from app.config import load_settings
from app.errors import ConfigurationError
from app.server import Server, check_settings, configure_logging, drain_s, server_threads
from app.server_worker import Worker


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ({}, 30),
        ({"timeout_ms": 60_000}, 65),
        ({"llm_url": "http://127.0.0.1:1"}, 75),
        ({"llm_url": "http://127.0.0.1:1", "llm_timeout_s": 100_000}, 600),
    ],
)
def test_a_stop_waits_as_long_as_an_answer_may_take(settings: dict[str, Any], seconds: int) -> None:
    assert drain_s(load_settings(**settings)) == seconds


def test_whoever_waits_for_a_turn_has_a_thread_and_probes_too() -> None:
    assert server_threads(load_settings(concurrency=4, queue=32)) == 60
    assert server_threads(load_settings(concurrency=4, queue=0, threads=64)) == 64


def test_the_server_takes_nothing_from_proxies_and_is_watched() -> None:
    cfg = Server(load_settings(worker_max_requests=1000, concurrency=2, queue=2)).cfg
    assert cfg.worker_class is Worker
    assert (cfg.max_requests, cfg.max_requests_jitter) == (1000, 200)
    assert cfg.timeout == 25
    assert cfg.sendfile is False
    assert cfg.secure_scheme_headers == {}
    assert cfg.worker_connections > cfg.threads
    assert [value for value in cfg.forwarded_allow_ips if value] == []


def test_wrong_settings_are_found_before_a_worker_starts() -> None:
    with pytest.raises(ConfigurationError, match="BRAID_RATE_LIMIT_KEY"):
        check_settings(load_settings(rate_limit_key="lots"))
    with pytest.raises(ConfigurationError, match="BRAID_CORS_ORIGINS"):
        check_settings(load_settings(cors_origins="*"))
    with pytest.raises(ConfigurationError, match="BRAID_AUDIT_LOG"):
        check_settings(load_settings(audit_log="/nowhere/audit.jsonl"))


def test_lines_of_clients_that_hold_ids_or_passwords_are_not_logged() -> None:
    names = ("opensearch", "httpx", "httpx2", "openai", "urllib3")
    before = {name: logging.getLogger(name).level for name in names}
    try:
        configure_logging()
        # an expected 404 of OpenSearch is a warning there, with the path: of a look-up of a key, its id
        assert not logging.getLogger("opensearch").isEnabledFor(logging.ERROR)
        assert not any(logging.getLogger(name).isEnabledFor(logging.INFO) for name in names)
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
