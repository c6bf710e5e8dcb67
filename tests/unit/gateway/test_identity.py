from __future__ import annotations

import pytest

from app.config import load_settings
from app.errors import ConfigurationError, NotAuthenticated
from app.gateway.identity import check_exposure, identify
from reranker.loopback import is_loopback

OPEN = load_settings(api_key=None)
LOCKED = load_settings(api_key="s3cret", tenant="acme")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True),
        ("0.0.0.0", False), ("10.0.0.1", False), ("example.org", False), ("127.0.0.1.example.org", False), ("", False),
    ],
)  # fmt: skip
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_refuses_to_listen_outside_without_a_key() -> None:
    with pytest.raises(ConfigurationError, match="BRAID_API_KEY"):
        check_exposure(load_settings(host="0.0.0.0"))
    check_exposure(load_settings(host="0.0.0.0", api_key="x"))


@pytest.mark.parametrize("header", [None, "", "s3cret", "Bearer", "Bearer wrong", "Basic s3cret", "Bearer s3cret2"])
def test_wrong_keys(header: str | None) -> None:
    with pytest.raises(NotAuthenticated):
        identify(LOCKED, header, "braid.internal", None)


def test_the_key_opens_its_tenant() -> None:
    assert identify(LOCKED, "Bearer s3cret", "braid.internal", "https://elsewhere.example").tenant == "acme"


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("evil.example:8080", None),
        ("127.0.0.1:8080", "http://evil.example"),
        ("127.0.0.1:8080", "http://127.0.0.1:9999"),
        ("127.0.0.1:8080", "null"),
    ],
)
def test_without_a_key_other_sites_can_not_ask(host: str, origin: str | None) -> None:
    with pytest.raises(NotAuthenticated):
        identify(OPEN, None, host, origin)


def test_without_a_key_the_own_page_may_ask() -> None:
    assert identify(OPEN, None, "127.0.0.1:8080", "http://127.0.0.1:8080").tenant == "default"
    assert identify(OPEN, None, "[::1]:8080", None).principals is None
