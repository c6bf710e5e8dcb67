"""Signing keys of an identity provider (a JWKS), cached so that requests rarely wait for them.

They are fetched with the first token, and again in the background once they are `FRESH_S` old (in the foreground at
twice that). An unknown key id triggers at most one fetch per `PAUSE_S`, however many tokens name unknown ones. While
the provider is unavailable, cached keys are valid for `KEPT_S`; then no token is accepted until it is available.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import httpx2
import jwt
import orjson

from app.errors import SigningKeysUnavailable

FRESH_S = 300.0
KEPT_S = 3600.0
PAUSE_S = 10.0
TIMEOUT_S = 3.0
"""Timeout of a complete fetch."""
_WAIT_S = 0.5
"""Seconds that a request with an unknown key id waits for a fetch in progress."""
_MAX_BYTES = 512 * 1024

KEY_TYPES: Mapping[str, tuple[str, str | None]] = MappingProxyType(
    {
        **{f"{family}{bits}": ("RSA", None) for family in ("RS", "PS") for bits in (256, 384, 512)},
        "ES256": ("EC", "P-256"),
        "ES384": ("EC", "P-384"),
        "ES512": ("EC", "P-521"),
        "EdDSA": ("OKP", "Ed25519"),
    }
)
"""Algorithm -> type and curve of its keys. All are asymmetric: a public key can never be a secret of HMAC."""

_log = logging.getLogger("braid.tokens")


class SigningKeys:
    """Published keys of one provider. Thread-safe."""

    def __init__(self, url: str) -> None:
        """Create a cache for the JWKS at `url`, which is fetched when first needed."""
        self._url = url
        # redirects are not followed: the operator configured this URL and no other
        self._client = httpx2.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False)
        self._keys: dict[str, list[dict[str, Any]]] = {}
        self._ready: dict[tuple[str, str], jwt.PyJWK | None] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._failing = False
        self._fetching = threading.Lock()

    def find(self, kid: str, algorithm: str) -> jwt.PyJWK | None:
        """Return the published key of that id for the algorithm; None if the provider publishes none.

        Raises:
            SigningKeysUnavailable: the provider does not answer, and the key was not among those published in the last
                hour.
        """
        now = time.monotonic()
        if self._age(now) >= KEPT_S or kid not in self._keys:
            self._fetch(wait_s=TIMEOUT_S if self._fetched_at is None else _WAIT_S)
            if self._age(time.monotonic()) >= KEPT_S:
                raise SigningKeysUnavailable(_UNAVAILABLE)
        elif self._age(now) >= 2 * FRESH_S and not self._failing:
            self._fetch(wait_s=0)  # nobody asked for a while, so a withdrawn key may be cached
        elif self._age(now) >= FRESH_S and self._may_try(now):
            threading.Thread(target=self._fetch, name="braid-jwks", daemon=True).start()
        if kid not in self._keys:
            if self._failing:
                raise SigningKeysUnavailable(_UNAVAILABLE)
            return None
        return self._fitting(kid, algorithm)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _age(self, now: float) -> float:
        return float("inf") if self._fetched_at is None else now - self._fetched_at

    def _may_try(self, now: float) -> bool:
        return self._tried_at is None or now - self._tried_at >= PAUSE_S

    def _fetch(self, wait_s: float = 0) -> None:
        """Fetch, unless that was tried a moment ago; wait up to `wait_s` seconds for a fetch in progress."""
        asked_at = time.monotonic()
        if not self._fetching.acquire(timeout=wait_s):  # 0: does not wait
            return
        try:
            if self._may_try(asked_at):
                self._ask()
        finally:
            self._fetching.release()

    def _ask(self) -> None:
        """Ask the provider once; known keys stay unless the answer is a usable set of keys."""
        self._tried_at = time.monotonic()
        try:
            keys = _read_keys(self._download())
        except (httpx2.HTTPError, httpx2.StreamError, ValueError) as error:
            if not self._failing:
                _log.warning("the keys of BRAID_JWT_JWKS_URL are unavailable: %s", _reason(error))
            self._failing = True
            return
        if self._failing:
            _log.warning("the keys of BRAID_JWT_JWKS_URL are available again")
        self._failing = False
        self._keys, self._ready = keys, {}
        self._fetched_at = time.monotonic()

    def _download(self) -> bytes:
        until = time.monotonic() + TIMEOUT_S
        body = bytearray()
        with self._client.stream("GET", self._url, headers={"Accept": "application/json"}) as response:
            if response.status_code != 200:
                raise ValueError(f"status {response.status_code}")
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _MAX_BYTES or time.monotonic() > until:
                    raise ValueError("too much, or too slow")
        return bytes(body)

    def _fitting(self, kid: str, algorithm: str) -> jwt.PyJWK | None:
        ready = self._ready
        if (kid, algorithm) not in ready:
            ready[kid, algorithm] = next(
                (key for item in self._keys.get(kid, ()) if (key := _as_key(item, algorithm)) is not None), None
            )
        return ready[kid, algorithm]


_UNAVAILABLE = (
    "the identity provider can't be asked for its keys (BRAID_JWT_JWKS_URL), so tokens can't be checked: try again"
)


def _read_keys(body: bytes) -> dict[str, list[dict[str, Any]]]:
    """Return the keys of a set by id: those with an id that are for signatures. Raises ValueError."""
    found = orjson.loads(body)
    keys = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(keys, list):
        raise ValueError("not a set of keys")
    by_id: dict[str, list[dict[str, Any]]] = {}
    for item in keys:
        if isinstance(item, dict) and isinstance(kid := item.get("kid"), str) and item.get("use", "sig") == "sig":
            by_id.setdefault(kid, []).append(item)
    if not by_id:
        raise ValueError("no signing key with an id")
    return by_id


def _as_key(item: dict[str, Any], algorithm: str) -> jwt.PyJWK | None:
    """Return a published key for one algorithm; None if it is for another one, or unreadable."""
    kty, curve = KEY_TYPES[algorithm]
    if item.get("kty") != kty or item.get("alg", algorithm) != algorithm or (curve and item.get("crv") != curve):
        return None
    # only the public parts: a private key that a provider publishes by mistake is not kept
    public: dict[str, Any] = {name: item[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in item}
    try:
        return jwt.PyJWK(public, algorithm)
    except jwt.PyJWTError:
        _log.warning("a key of BRAID_JWT_JWKS_URL is unreadable")
        return None


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else type(error).__name__
