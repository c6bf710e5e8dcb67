"""Whose word on the time of a request's arrival is taken, and what is done with one that came long ago."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.api.factory import ENDPOINTS
from app.config import load_settings
from app.errors import ConfigurationError
from app.gateway.arrival import ARRIVED, Arrivals, exposure_warning, trusted_proxies, waited_s

PROXIES = trusted_proxies(load_settings(trusted_proxies="10.0.0.7, 192.168.0.0/24,fd00::/8").server)
SHED = [(endpoint.method, endpoint.rule) for endpoint in ENDPOINTS if endpoint.sheds]
NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("peer", "start", "waited"),
    [
        ("10.0.0.7", "t=1799999999.500", 0.5),
        ("::ffff:10.0.0.7", "1799999999.500", 0.5),
        ("192.168.0.9", "t=1799999999", 1.0),
        ("fd00::1", "t=1799999999", 1.0),
        ("10.0.0.7", "t=1799990000", 10.0),  # longer than is believed
        ("10.0.0.7", "t=1800000005", 0.0),  # its clock is ahead
        ("10.0.0.8", "t=1799999999", None),
        ("", "t=1799999999", None),
        ("10.0.0.7", "", None),
        ("10.0.0.7", "yesterday", None),
        ("10.0.0.7", "t=-1", None),
        ("10.0.0.7", "t=1e9", None),
        ("10.0.0.7", "t=1799999999,t=1", None),
    ],
)
def test_only_a_proxy_that_is_named_is_believed(peer: str, start: str, waited: float | None) -> None:
    assert waited_s(PROXIES, peer, start, NOW) == waited


def test_without_a_setting_nobody_is_believed() -> None:
    assert trusted_proxies(load_settings().server) == ()
    with pytest.raises(ConfigurationError, match=r"BRAID_TRUSTED_PROXIES: 'nginx'"):
        trusted_proxies(load_settings(trusted_proxies="nginx").server)


def test_a_public_address_without_a_proxy_is_warned_of() -> None:
    assert exposure_warning(load_settings().server) is None
    assert exposure_warning(load_settings(host="0.0.0.0", trusted_proxies="10.0.0.7").server) is None
    assert "slow clients can hold threads" in str(exposure_warning(load_settings(host="0.0.0.0").server))


@pytest.mark.parametrize(
    ("path", "ago", "busy", "status"),
    [
        ("/v1/search", 1.0, True, "429 Too Many Requests"),
        ("/v1/answer", 1.0, True, "429 Too Many Requests"),
        ("/v1/search", 1.0, False, "200 OK"),  # the machine stood still, and nobody waits
        ("/v1/search", 0.0, True, "200 OK"),
        ("/healthz", 1.0, True, "200 OK"),
    ],
)
def test_a_search_that_waited_too_long_is_told_to_come_back(path: str, ago: float, busy: bool, status: str) -> None:
    seen: dict[str, Any] = {}

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        seen.update(environ)
        start_response("200 OK", [])
        return []

    started: list[str] = []
    began = time.monotonic()
    body = Arrivals(application, PROXIES, SHED, lambda: busy)(
        {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": path,
            "REMOTE_ADDR": "10.0.0.7",
            "HTTP_X_REQUEST_START": f"t={time.time() - ago:.3f}",
        },
        lambda said, _headers: started.append(said),
    )
    assert started == [status]
    if status != "200 OK":
        (problem,) = map(orjson.loads, body)
        assert problem["detail"] == problem["message"] == problem["error"]["message"]
    if status == "200 OK":
        assert seen[ARRIVED] == pytest.approx(began - ago, abs=0.1)


def test_nginx_takes_bodies_as_large_as_the_service_does() -> None:
    text = (Path(__file__).parents[2] / "docker" / "nginx" / "nginx.conf").read_text(encoding="utf-8")
    (size,) = re.findall(r"client_max_body_size (\d+)m;", text)
    assert int(size) * 1024 * 1024 == load_settings().limits.max_body_bytes
