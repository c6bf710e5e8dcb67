"""Headers in, a caller out: who is let in with what, and what is refused before anything looks at it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from app.config import Settings, load_settings
from app.errors import ConfigurationError, Forbidden, MalformedRequest, NotAuthenticated, StoreUnavailable
from app.gateway import keys as keys_module
from app.gateway.caller import Caller, make_caller, operator
from app.gateway.identity import Identity, authorize, refuse_keys_in_url, require_authentication
from app.gateway.keys import KeyRing
from app.gateway.roles import Role
from reranker.runtime.loopback import is_loopback
from tests.unit.gateway.keystore import SECRET, KeyStore
from tests.unit.gateway.provider import AUDIENCE, ISSUER, Provider, SigningKey, running_provider, token

RSA = SigningKey("rsa", "rsa-1")


def open_identity(**more: Any) -> Identity:
    return Identity(load_settings(**more), KeyStore())


OPEN = open_identity()
LOCKED = open_identity(api_key="s3cret", tenant="acme")


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
    with pytest.raises(ConfigurationError, match=r"BRAID_API_KEY.*BRAID_KEYS_SECRET.*BRAID_JWT_JWKS_URL"):
        require_authentication(load_settings(host="0.0.0.0"))
    require_authentication(load_settings(host="0.0.0.0", api_key="x"))
    require_authentication(load_settings(host="0.0.0.0", keys_secret=SECRET))
    require_authentication(load_settings(host="0.0.0.0", jwt_jwks_url="https://x/k", jwt_issuer="i", jwt_audience="a"))
    require_authentication(load_settings(host="127.0.0.1"))


@pytest.mark.parametrize("key", ["two words", "with,comma", "schlüssel", "tab\t"])
def test_an_operator_key_that_no_header_carries_stops_the_start(key: str) -> None:
    with pytest.raises(ConfigurationError, match="BRAID_API_KEY") as caught:
        load_settings(api_key=key)
    assert key not in str(caught.value)


WRONG_HEADERS = [
    None, "", " ", "s3cret", "Bearer", "Bearer ", "Bearer wrong", "Basic s3cret", "Bearer s3cret2", "Bearer s3cre",
    "Bearer S3CRET", "Bearers3cret", "Bearer\ts3cret", " Bearer s3cret", "Bearer s3cret ", "Bearer s3cret\r\nX: y",
    "Bearer s3cret s3cret", "Bearer s3cret,Bearer s3cret", "Bearer s3cret, Bearer other", "Bearer s3cret,",
    "Bearer wrong,s3cret", 'Bearer "s3cret"', "Bearer s3cret\x00", "Bearer s3crét", "Bearer s3cret\u200b",
    "Bearer ｓ3cret", "Bearer " + "x" * 9000, "Bearer " + " " * 9000 + "s3cret", "Bearer s3cret;",
    "Bearer Bearer s3cret",
]  # fmt: skip


@pytest.mark.parametrize("header", WRONG_HEADERS)
def test_wrong_headers(header: str | None) -> None:
    with pytest.raises(NotAuthenticated) as caught:
        LOCKED.identify(header, "braid.internal", None)
    assert "s3cr" not in caught.value.detail.lower()


def test_the_operators_key_opens_its_tenant() -> None:
    for header in ("Bearer s3cret", "bearer s3cret", "BEARER  s3cret"):
        caller = LOCKED.identify(header, "braid.internal", "https://elsewhere.example")
        assert (caller.scope.tenant, caller.scope.principals, caller.scope.subject) == ("acme", None, None)
        assert caller.is_operator
        assert caller.roles == frozenset(Role)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("evil.example:8080", None),
        ("127.0.0.1:8080", "http://evil.example"),
        ("127.0.0.1:8080", "http://127.0.0.1:9999"),
        ("127.0.0.1:8080", "null"),
        ("127.0.0.1:8080", "http://["),
        ("127.0.0.1:8080", "http://127.0.0.1:8080@evil.example"),
        ("", None),
    ],
)
def test_without_a_key_other_sites_can_not_ask(host: str, origin: str | None) -> None:
    with pytest.raises(NotAuthenticated):
        OPEN.identify(None, host, origin)


def test_without_a_key_the_own_page_may_ask() -> None:
    assert OPEN.identify(None, "127.0.0.1:8080", "http://127.0.0.1:8080").scope.tenant == "default"
    assert OPEN.identify(None, "[::1]:8080", None).is_operator
    assert OPEN.identify("Bearer anything", "localhost", None).is_operator


@pytest.mark.parametrize(
    "given",
    [
        {"api_key": "s3cret"},
        {"keys_secret": SECRET},
        {"jwt_jwks_url": "http://127.0.0.1:9/", "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE},
    ],
)
def test_any_kind_of_credential_closes_the_loopback_door(given: dict[str, str]) -> None:
    identity = open_identity(**given)
    for header in (None, "Bearer x", "Bearer braid_x_y"):
        with pytest.raises(NotAuthenticated):
            identity.identify(header, "127.0.0.1:8080", None)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running_provider() as found:
        found.keys = [RSA.jwk()]
        yield found


def settings_of_all(provider: Provider) -> Settings:
    return load_settings(
        api_key="s3cret", keys_secret=SECRET, jwt_jwks_url=provider.url, jwt_issuer=ISSUER, jwt_audience=AUDIENCE
    )


def test_three_kinds_beside_each_other(provider: Provider) -> None:
    store, settings = KeyStore(), settings_of_all(provider)
    _, key = KeyRing(settings.access, store).create(name="a", tenant="beta", groups=["staff"])
    identity = Identity(settings, store)

    def who(credential: str) -> Caller:
        return identity.identify(f"Bearer {credential}", "braid.internal", None)

    assert who("s3cret").is_operator
    assert (who(key).scope.tenant, who(key).scope.principals) == ("beta", {"staff"})
    assert who(token(RSA)).scope.subject == "user:ann"
    for wrong in (
        key[:-1],
        key + "0",
        key.upper(),
        f"x{key}",
        f"{key}.",
        key.replace("_", "-"),
        "a.b",
        "..",
        "braid__",
    ):
        with pytest.raises(NotAuthenticated) as caught:
            who(wrong)
        assert key[-60:] not in caught.value.detail
    identity.close()


def test_a_store_that_is_away_is_no_wrong_key(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "KEPT_S", 0.0)
    store, settings = KeyStore(), settings_of_all(provider)
    _, key = KeyRing(settings.access, store).create(name="a", tenant="beta")
    store.failure = StoreUnavailable("OpenSearch can't be reached")
    identity = Identity(settings, store)
    with pytest.raises(StoreUnavailable):
        identity.identify(f"Bearer {key}", "braid.internal", None)
    assert identity.identify("Bearer s3cret", "braid.internal", None).is_operator
    assert identity.identify(f"Bearer {token(RSA)}", "braid.internal", None)
    identity.close()


def test_without_a_secret_a_key_is_nothing() -> None:
    store = KeyStore()
    _, key = KeyRing(load_settings(keys_secret=SECRET).access, store).create(name="a", tenant="beta")
    with pytest.raises(NotAuthenticated):
        LOCKED.identify(f"Bearer {key}", "braid.internal", None)


def caller_with(*roles: Role) -> Caller:
    return make_caller(tenant="t", groups=[], roles=frozenset(roles), subject="key:1", name="n")


@pytest.mark.parametrize("wanted", [role for role in Role if role is not Role.ADMIN])
def test_roles(wanted: Role) -> None:
    authorize(operator("t"), wanted)
    authorize(caller_with(Role.ADMIN), wanted)
    authorize(caller_with(wanted), wanted)
    with pytest.raises(Forbidden, match=f"role {wanted.value}"):
        authorize(caller_with(*(role for role in Role if role not in {wanted, Role.ADMIN})), wanted)
    with pytest.raises(Forbidden):
        authorize(caller_with(), wanted)


def test_what_is_in_no_table_is_the_operators() -> None:
    authorize(operator("t"), None)
    with pytest.raises(Forbidden, match="operator"):
        authorize(caller_with(*Role), None)


@pytest.mark.parametrize(
    "query",
    ["key=1", "API_KEY=x", "apikey=", "a=1&token=x", "access_token=x", "q=braid_" + "0" * 24 + "_" + "0" * 64],
)
def test_keys_in_addresses(query: str) -> None:
    names = [part.partition("=")[0] for part in query.split("&")]
    with pytest.raises(MalformedRequest, match=r"leaked.*revoke") as caught:
        refuse_keys_in_url(names, query)
    assert "0" * 24 not in caught.value.detail
    refuse_keys_in_url(["q", "keys", "tokens"], "q=braid_1&keys=2&tokens=3")


def test_refusing_asks_nobody() -> None:
    store = KeyStore()
    identity = Identity(load_settings(keys_secret=SECRET), store)
    for header in WRONG_HEADERS:
        with pytest.raises(NotAuthenticated):
            identity.identify(header, "braid.internal", None)
    assert store.asked == 0
