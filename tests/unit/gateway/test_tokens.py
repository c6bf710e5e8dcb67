"""Tokens of an identity provider that really listens: what is taken, and everything that is not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from app.config import Settings, load_settings
from app.errors import ConfigurationError, NotAuthenticated, SigningKeysUnavailable
from app.gateway import signing_keys as module
from app.gateway.caller import Caller
from app.gateway.roles import Role
from app.gateway.tokens import TokenVerifier
from tests.unit.gateway.provider import AUDIENCE, ISSUER, Provider, SigningKey, running_provider, token

RSA = SigningKey("rsa", "rsa-1")
STRANGER = SigningKey("rsa", "rsa-1")
"""Another key that claims the same id."""
EC = SigningKey("p256", "ec-1")


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running_provider() as found:
        found.keys = [RSA.jwk(), EC.jwk()]
        yield found


def settings(provider: Provider, **more: Any) -> Settings:
    return load_settings(jwt_jwks_url=provider.url, jwt_issuer=ISSUER, jwt_audience=AUDIENCE, **more)


@pytest.fixture
def verifier(provider: Provider) -> Iterator[TokenVerifier]:
    found = TokenVerifier(settings(provider).jwt)
    yield found
    found.close()


def refuse(verifier: TokenVerifier, given: str, said: str = ".") -> None:
    with pytest.raises(NotAuthenticated, match=said) as caught:
        verifier.verify(given)
    for part in given.split("."):
        assert len(part) < 8 or part not in caught.value.detail


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def by_hand(header: Any, claims: Any, sign: Callable[[bytes], bytes]) -> str:
    """A token put together without a library, which would not make such ones."""
    signed = f"{part(header)}.{part(claims)}"
    return f"{signed}.{part(sign(signed.encode()))}"


def with_secret(secret: bytes) -> Callable[[bytes], bytes]:
    """Signs as HS256 does."""
    return lambda text: hmac.digest(secret, text, hashlib.sha256)


def claims(**more: Any) -> dict[str, Any]:
    now = int(time.time())
    return {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now + 300, "tenant": "acme", "roles": ["admin"], **more
    }  # fmt: skip


def test_a_good_token_gives_a_caller(verifier: TokenVerifier) -> None:
    caller = verifier.verify(token(RSA, groups=["staff", "Ärzte"], roles=["search", "feedback", "uma_authorization"]))
    assert caller.scope.tenant == "acme"
    assert caller.scope.principals == {"staff", "Ärzte", "user:ann"}
    assert caller.scope.subject == caller.name == "user:ann"
    assert caller.roles == {Role.SEARCH, Role.FEEDBACK}
    assert caller.rate is None


def test_admin_sees_all_of_the_tenant_under_their_own_name(verifier: TokenVerifier) -> None:
    scope = verifier.verify(token(RSA, roles=["admin"])).scope
    assert (scope.principals, scope.subject, scope.tenant) == (None, "user:ann", "acme")


@pytest.mark.parametrize(
    ("kind", "algorithm"), [("rsa", "RS256"), ("rsa", "PS256"), ("p256", "ES256"), ("ed25519", "EdDSA")]
)
@pytest.mark.parametrize("named", [True, False])
def test_the_asymmetric_algorithms(
    provider: Provider, verifier: TokenVerifier, kind: str, algorithm: str, named: bool
) -> None:
    key = SigningKey(kind, "k")
    provider.keys = [key.jwk(**({"alg": algorithm} if named else {}))]
    assert verifier.verify(token(key, algorithm)).scope.tenant == "acme"


def test_a_key_is_for_the_algorithm_that_it_is_published_for(provider: Provider, verifier: TokenVerifier) -> None:
    provider.keys = [RSA.jwk(alg="PS256")]
    refuse(verifier, token(RSA, "RS256"), "does not publish")
    assert verifier.verify(token(RSA, "PS256"))


def test_algorithms_that_are_not_configured(provider: Provider) -> None:
    verifier = TokenVerifier(settings(provider, jwt_algorithms="ES256").jwt)
    refuse(verifier, token(RSA), "BRAID_JWT_ALGORITHMS")
    assert verifier.verify(token(EC, "ES256"))
    p384 = SigningKey("p384", "p384")
    provider.keys.append(p384.jwk())
    refuse(verifier, token(p384, "ES384"), "BRAID_JWT_ALGORITHMS")


def test_a_key_of_another_curve_can_not_pass_for_es256(provider: Provider, verifier: TokenVerifier) -> None:
    p384 = SigningKey("p384", "ec-1")
    provider.keys = [p384.jwk()]
    refuse(verifier, token(EC, "ES256"), "does not publish")


def test_no_signature_is_no_token(verifier: TokenVerifier) -> None:
    for algorithm in ("none", "None", "NONE", "nOnE", "", None, 0, ["RS256"], {"RS256": 1}):
        header = {"alg": algorithm, "kid": "rsa-1", "typ": "JWT"}
        refuse(verifier, by_hand(header, claims(), lambda _: b""), "BRAID_JWT_ALGORITHMS|not a JWT")
    whole = token(RSA)
    refuse(verifier, whole.rpartition(".")[0] + ".", "not valid|not a JWT")


def test_the_public_key_is_no_shared_secret(provider: Provider, verifier: TokenVerifier) -> None:
    public = RSA.private.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    for secret in (pem, pem.strip(), der, json.dumps(RSA.jwk()).encode()):
        for algorithm in ("HS256", "RS256"):
            refuse(verifier, by_hand({"alg": algorithm, "kid": "rsa-1"}, claims(), with_secret(secret)))
    with pytest.raises(ConfigurationError, match="HS256"):
        settings(provider, jwt_algorithms="RS256,HS256")


def test_a_published_secret_is_not_used(provider: Provider, verifier: TokenVerifier) -> None:
    secret = b"s" * 32
    provider.keys.append({"kty": "oct", "kid": "oct-1", "k": part(secret), "alg": "HS256"})
    provider.keys.append({"kty": "oct", "kid": "oct-2", "k": part(secret)})
    for kid in ("oct-1", "oct-2"):
        for algorithm in ("HS256", "RS256"):
            refuse(verifier, by_hand({"alg": algorithm, "kid": kid}, claims(), with_secret(secret)))


def test_forged_altered_and_foreign_tokens(verifier: TokenVerifier) -> None:
    refuse(verifier, token(STRANGER), "not valid")
    header, _, signature = token(RSA).split(".")
    refuse(verifier, f"{header}.{part(claims())}.{signature}", "not valid")
    refuse(verifier, f"{part({'alg': 'RS256', 'kid': 'ec-1'})}.{part(claims())}.{signature}", "does not publish")


def test_keys_that_the_token_brings_are_not_looked_at(verifier: TokenVerifier) -> None:
    with running_provider() as evil:
        own = SigningKey("rsa", "evil")
        evil.keys = [own.jwk()]
        for header in (
            {"jku": evil.url, "kid": "evil"},
            {"x5u": evil.url, "kid": "evil"},
            {"jwk": own.jwk(), "kid": "evil"},
            {"jku": evil.url, "kid": "rsa-1"},
            {"jwk": own.jwk(), "kid": "rsa-1"},
            {"x5c": ["AAAA"], "kid": "rsa-1"},
        ):
            refuse(verifier, token(own, headers=header))
        assert evil.asked == 0


@pytest.mark.parametrize(
    "kid",
    ["../../dev/null", "rsa-1\0", "RSA-1", " rsa-1", "rsa-1' OR '1'='1", "http://127.0.0.1/x", "x" * 4000, "ｒsa-1"],
)
def test_key_ids_are_only_compared(verifier: TokenVerifier, kid: str) -> None:
    refuse(verifier, token(RSA, headers={"kid": kid}), "does not publish")


@pytest.mark.parametrize("kid", [None, "", 1, ["rsa-1"], {"a": 1}])
def test_a_key_id_is_needed(verifier: TokenVerifier, kid: Any) -> None:
    header = {"alg": "RS256"} if kid is None else {"alg": "RS256", "kid": kid}
    refuse(verifier, by_hand(header, claims(), lambda _: b"x"), "kid|not a JWT")


@pytest.mark.parametrize(
    "given",
    [
        "..", "a.b.c", "....", "é.é.é", "AAAA.AAAA.AAAA", f"{part([])}.{part({})}.AAAA", f"{part('x')}.x.x",
        f"{part(b'[' * 3000)}.AAAA.AAAA", f"{part(b'{%s' % (b'[' * 3000))}.AAAA.AAAA",
        part(b'{"alg":' + b"[" * 3000) + ".AAAA.AAAA",
        f"{part({'alg': 'RS256', 'kid': 'rsa-1', 'crit': ['exp']})}.{part({})}.AAAA",
        f"{part({'alg': 'RS256', 'kid': 'rsa-1', 'b64': False, 'crit': ['b64']})}..AAAA",
    ],
)  # fmt: skip
def test_what_is_no_token(verifier: TokenVerifier, given: str) -> None:
    refuse(verifier, given)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"exp": int(time.time()) - 60}, "expired"),
        ({"exp": None}, "lacks a claim"),
        ({"exp": "soon"}, "not valid"),
        ({"exp": float("inf")}, "not valid"),
        ({"exp": float("nan")}, "not valid"),
        ({"exp": [1]}, "not valid"),
        ({"nbf": int(time.time()) + 600}, "not valid yet"),
        ({"iat": int(time.time()) + 600}, "not valid yet"),
        ({"iss": None}, "lacks a claim"),
        ({"iss": ISSUER.rstrip("/")}, "another issuer"),
        ({"iss": ISSUER.upper()}, "another issuer"),
        ({"aud": None}, "lacks a claim"),
        ({"aud": "other"}, "another audience"),
        ({"aud": ["other", "braid2"]}, "another audience"),
        ({"aud": []}, "another audience|not valid|lacks"),
        ({"aud": {"braid": 1}}, "another audience|not valid"),
        ({"sub": None}, "lacks a claim"),
        ({"sub": 7}, "not valid"),
        ({"sub": ""}, "'sub'"),
        ({"sub": "a\nb"}, "'sub'"),
        ({"sub": "\ud800"}, "'sub'"),
        ({"sub": "x" * 257}, "'sub'"),
        ({"tenant": None}, "'tenant'"),
        ({"tenant": ["acme"]}, "'tenant'"),
        ({"tenant": {"a": 1}}, "'tenant'"),
        ({"tenant": 1}, "'tenant'"),
        ({"tenant": True}, "'tenant'"),
        ({"tenant": ""}, "'tenant'"),
        ({"tenant": "acme\n"}, "'tenant'"),
        ({"tenant": "a" * 65}, "'tenant'"),
        ({"tenant": "ａcme"}, "'tenant'"),
        ({"tenant": "acm\u0065\u0301"}, "'tenant'"),
        ({"tenant": "ac\u200bme"}, "'tenant'"),
        ({"tenant": "*"}, "'tenant'"),
        ({"groups": "staff"}, "'groups'"),
        ({"groups": {"staff": True}}, "'groups'"),
        ({"groups": [["staff"]]}, "'groups'"),
        ({"groups": [1]}, "'groups'"),
        ({"groups": [None]}, "'groups'"),
        ({"groups": ["staff", "user:bob"]}, "'groups'"),
        ({"groups": ["key:1"]}, "'groups'"),
        ({"groups": [" "]}, "'groups'"),
        ({"groups": ["a\0"]}, "'groups'"),
        ({"groups": ["\udfff"]}, "'groups'"),
        ({"groups": ["x" * 257]}, "'groups'"),
        ({"groups": [f"g{n}" for n in range(1001)]}, "'groups'"),
        ({"roles": "admin"}, "'roles'"),
        ({"roles": {"admin": True}}, "'roles'"),
        ({"roles": [["admin"]]}, "'roles'"),
    ],
)
def test_claims_that_are_wrong(verifier: TokenVerifier, wrong: dict[str, Any], said: str) -> None:
    refuse(verifier, by_hand_signed(wrong), said)


def by_hand_signed(more: dict[str, Any]) -> str:
    """A token rightly signed, with claims that PyJWT would not sign."""
    whole = {name: value for name, value in claims(**more).items() if value is not None}
    algorithm = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256)
    return by_hand({"alg": "RS256", "kid": "rsa-1"}, whole, lambda text: algorithm.sign(text, RSA.private))


def test_roles_are_taken_as_they_are_written(verifier: TokenVerifier) -> None:
    for names in (["Admin", "ADMIN", " admin", "admin\0", "ａdmin", "admi\u006e\u0303"], [], None):
        caller = verifier.verify(by_hand_signed({"roles": names}))
        assert caller.roles == frozenset()
        assert caller.scope.principals == {"user:ann"}


def test_names_that_fold_alike_are_not_the_same(verifier: TokenVerifier) -> None:
    alike = [
        "caf\u00e9", "cafe\u0301", "CAF\u00c9", "Caf\u00e9", "ｃａｆé", "caf\u00e9\u200b", "caf\u00e9 ", " caf\u00e9",
        "caf\u00e9\u00ad", "c\u0430f\u00e9", "\u202ecaf\u00e9",
    ]  # fmt: skip
    assert len({unicodedata.normalize("NFKC", name) for name in alike}) < len(alike)
    seen: list[frozenset[str] | None] = []
    for name in alike:
        caller: Caller = verifier.verify(token(RSA, sub=f"s{len(seen)}", groups=[name]))
        assert caller.scope.principals == {name, f"user:s{len(seen)}"}
        seen.append(caller.scope.principals)
    assert sum(len((found or frozenset()) - {f"user:s{n}"}) for n, found in enumerate(seen)) == len(alike)
    groups = [next(iter((found or frozenset()) - {f"user:s{n}"})) for n, found in enumerate(seen)]
    assert len(set(groups)) == len(alike)
    tenants = {verifier.verify(token(RSA, tenant=name)).scope.tenant for name in ("acme", "Acme", "ACME", "acme.")}
    assert len(tenants) == 4


def test_claims_by_other_names_and_by_path(provider: Provider) -> None:
    verifier = TokenVerifier(
        settings(
            provider,
            jwt_tenant_claim="https://braid/tenant",
            jwt_roles_claim="realm_access.roles",
            jwt_groups_claim="a.b",
        ).jwt
    )
    caller = verifier.verify(
        token(
            RSA,
            **{"https://braid/tenant": "beta", "realm_access": {"roles": ["ingest"]}, "a": {"b": ["x"]}, "a.b": ["y"]},
        )
    )
    assert (caller.scope.tenant, caller.roles) == ("beta", {Role.INGEST})
    assert caller.scope.principals == {"y", "user:ann"}
    refuse(verifier, token(RSA, realm_access=["x"]), "tenant")


def test_leeway(provider: Provider) -> None:
    late = token(RSA, exp=int(time.time()) - 5)
    assert TokenVerifier(settings(provider, jwt_leeway_s=60).jwt).verify(late)
    refuse(TokenVerifier(settings(provider, jwt_leeway_s=0).jwt), late, "expired")


def test_small_keys_are_refused(provider: Provider, verifier: TokenVerifier) -> None:
    small = SigningKey("small-rsa", "small")
    provider.keys = [small.jwk()]
    whole = claims()
    algorithm = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256)
    refuse(verifier, by_hand({"alg": "RS256", "kid": "small"}, whole, lambda text: algorithm.sign(text, small.private)))


def test_keys_are_fetched_once_for_many_tokens(provider: Provider, verifier: TokenVerifier) -> None:
    for _ in range(20):
        verifier.verify(token(RSA))
        verifier.verify(token(EC, "ES256"))
    assert provider.asked == 1


def test_unknown_ids_make_one_fetch_in_ten_seconds(
    provider: Provider, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier.verify(token(RSA))
    new = SigningKey("rsa", "rsa-2")
    provider.keys = [RSA.jwk(), new.jwk()]
    for number in range(30):
        refuse(verifier, token(STRANGER, headers={"kid": f"unknown-{number}"}), "does not publish")
    assert provider.asked == 1  # ten seconds have not gone by since the first fetch
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    assert verifier.verify(token(new))
    assert provider.asked == 2


def test_a_withdrawn_key_is_refused_after_the_next_fetch(
    provider: Provider, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier.verify(token(RSA))
    provider.keys = [EC.jwk()]
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    monkeypatch.setattr(module, "FRESH_S", 0.0)
    refuse(verifier, token(RSA), "does not publish")


def test_old_keys_are_renewed_behind_the_requests(
    provider: Provider, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier.verify(token(RSA))
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    fetched = verifier._keys._fetched_at
    assert fetched is not None
    real = time.monotonic
    monkeypatch.setattr(module.time, "monotonic", lambda: real() + module.FRESH_S + 1)
    verifier.verify(token(RSA))
    until = real() + 30
    while provider.asked < 2 and real() < until:
        time.sleep(0.01)
    assert provider.asked >= 2


@pytest.mark.parametrize(
    "answer",
    [
        (500, b"{}"), (200, b"<html>"), (200, b"[]"), (200, b"{}"), (200, b'{"keys": []}'), (200, b'{"keys": [1]}'),
        (200, b'{"keys": [{"kid": "rsa-1", "use": "enc"}]}'), (200, b"[" * 100_000), (200, b'"' + b"x" * 600_000),
        (302, b""),
    ],
)  # fmt: skip
def test_keys_stay_good_while_the_provider_is_away(
    provider: Provider, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, bytes]
) -> None:
    verifier.verify(token(RSA))
    provider.answer = answer
    provider.headers = {"Location": "http://127.0.0.1:9/"} if answer[0] == 302 else {}
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    monkeypatch.setattr(module, "FRESH_S", 0.0)
    assert verifier.verify(token(RSA))
    with pytest.raises(SigningKeysUnavailable):  # it may be a new one: neither yes nor no
        verifier.verify(token(RSA, headers={"kid": "new"}))
    assert verifier.verify(token(RSA))
    monkeypatch.setattr(module, "KEPT_S", 0.0)
    with pytest.raises(SigningKeysUnavailable):
        verifier.verify(token(RSA))
    provider.answer = None
    monkeypatch.setattr(module, "KEPT_S", 3600.0)
    assert verifier.verify(token(RSA))


def test_without_a_provider_there_is_no_yes_and_no_no() -> None:
    with running_provider() as gone:
        pass
    verifier = TokenVerifier(settings(gone).jwt)
    for _ in range(3):
        with pytest.raises(SigningKeysUnavailable):
            verifier.verify(token(RSA))


def test_requests_do_not_queue_behind_a_hanging_provider(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 120.0)
    verifier = TokenVerifier(settings(provider).jwt)
    verifier.verify(token(RSA))
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    monkeypatch.setattr(module, "FRESH_S", 0.0)
    provider.gate.clear()
    thread = threading.Thread(target=verifier.verify, args=(token(RSA),))
    thread.start()
    try:
        while provider.asked < 2:
            time.sleep(0.01)
        for _ in range(5):
            assert verifier.verify(token(RSA))
        assert thread.is_alive()  # the others were served while the one that fetches still waits
    finally:
        provider.gate.set()
        thread.join()
        verifier.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"jwt_issuer": None}, "BRAID_JWT_ISSUER"),
        ({"jwt_audience": None}, "BRAID_JWT_AUDIENCE"),
        ({"jwt_jwks_url": None}, "need BRAID_JWT_JWKS_URL"),
        ({"jwt_algorithms": "none"}, "never taken"),
        ({"jwt_algorithms": "RS256,HS512"}, "never taken"),
        ({"jwt_algorithms": ","}, "never taken"),
        ({"jwt_jwks_url": "file:///etc/passwd"}, "BRAID_JWT_JWKS_URL"),
    ],
)
def test_incomplete_settings_stop_the_start(given: dict[str, Any], said: str) -> None:
    whole = {"jwt_jwks_url": "https://x.example/keys", "jwt_issuer": "i", "jwt_audience": "a", **given}
    with pytest.raises(ConfigurationError, match=said):
        load_settings(**whole)
