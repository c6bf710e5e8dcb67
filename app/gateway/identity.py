"""Identification of callers, and their access.

There are three kinds of credentials, all sent as ``Authorization: Bearer``: the operator's key (``BRAID_API_KEY``),
keys created by `braid keys`, and tokens (JWT) of an identity provider. If none of them is configured, whoever can reach
the loopback address is the operator.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from app.config import Settings
from app.errors import ConfigurationError, Forbidden, MalformedRequest, NotAuthenticated, StoreError
from app.gateway.caller import Caller, operator
from app.gateway.cors import allowed_origins
from app.gateway.keys import KEY, KeyRing
from app.gateway.roles import Role
from app.gateway.tokens import TokenVerifier
from app.store.client import Cluster
from app.store.filters import Scope
from reranker.runtime.loopback import is_loopback

__all__ = ["Caller", "Identity", "Scope", "authorize", "refuse_keys_in_url", "require_authentication"]

_MAX_HEADER = 8192
_BEARER = re.compile(r"bearer +([!-+\--~]+)", re.IGNORECASE)
"""Visible ASCII without the comma: servers join several headers of a name with commas."""
_URL_NAMES = frozenset({"key", "api_key", "apikey", "token", "access_token"})
_REFUSED = "the key or token is unknown, expired or revoked; send a valid one as `Authorization: Bearer <key>`"


def require_authentication(settings: Settings) -> None:
    """Raise if the service would listen on a public address without requiring a credential.

    Raises:
        ConfigurationError: `host` is not loopback and no kind of credential is configured.
    """
    if not _wants_credential(settings) and not is_loopback(settings.server.host):
        raise ConfigurationError(
            f"BRAID_HOST={settings.server.host!r} is reachable from other machines without a key: "
            "set BRAID_API_KEY, BRAID_KEYS_SECRET or BRAID_JWT_JWKS_URL, or listen on 127.0.0.1"
        )


class Identity:
    """Turns a request's headers into a caller. One instance per process, thread-safe."""

    def __init__(self, settings: Settings, cluster: Cluster) -> None:
        self._tenant = settings.access.tenant
        self._wanted = _wants_credential(settings)
        self._origins = allowed_origins(settings.server)
        self._operator_key = settings.access.api_key.get_secret_value().encode() if settings.access.api_key else None
        self._keys = KeyRing(settings.access, cluster) if settings.access.keys_secret is not None else None
        self._tokens = TokenVerifier(settings.jwt) if settings.jwt.jwks_url is not None else None

    def identify(self, authorization: str | None, host_header: str, origin: str | None) -> Caller:
        """Return the caller of a request.

        Without a configured credential, only requests to a loopback host are accepted (a page of another site could
        otherwise reach the service through DNS rebinding), and none that a browser sent from another origin.

        Args:
            authorization: the header, or None; several joined by commas are rejected.

        Raises:
            NotAuthenticated: the credential is missing or invalid; or the host or origin is foreign and none is
                configured. The credential is never repeated.
            StoreUnavailable, StoreError: the key can't be looked up in OpenSearch.
            SigningKeysUnavailable: the identity provider can't be asked for the key of a token.
        """
        if not self._wanted:
            return self._identify_local(host_header, origin)
        credential = _credential(authorization)
        if self._operator_key is not None and hmac.compare_digest(credential.encode(), self._operator_key):
            return operator(self._tenant)
        if self._keys is not None and (key := KEY.fullmatch(credential)):
            return self._keys.verify(key[1], key[2])
        if self._tokens is not None and credential.count(".") == 2:
            return self._tokens.verify(credential)
        raise NotAuthenticated(_REFUSED)

    def still_admitted(self, authorization: str | None) -> bool:
        """Return whether the key of an admitted request has neither been revoked nor expired since.

        Other credentials can't be revoked. If the store can't tell, the request continues.
        """
        key = KEY.search(authorization or "")
        if self._keys is None or key is None:
            return True
        try:
            self._keys.verify(key[1], key[2])
        except NotAuthenticated:
            return False
        except StoreError:
            return True
        return True

    def is_known_origin(self, origin: str | None, host_header: str) -> bool:
        """Return whether a request comes from no browser, from the service's own page, or from a listed origin."""
        return origin is None or origin.lower() in self._origins or _origin_host(origin) == host_header

    def close(self) -> None:
        """Close the connection to the identity provider."""
        if self._tokens is not None:
            self._tokens.close()

    def _identify_local(self, host_header: str, origin: str | None) -> Caller:
        if not is_loopback(_host_name(host_header)):
            raise NotAuthenticated(
                f"host {host_header!r} is not a loopback name; without BRAID_API_KEY only this machine has access"
            )
        if not self.is_known_origin(origin, host_header):
            raise NotAuthenticated(
                f"origin {origin!r} is not this service; without BRAID_API_KEY browsers have access only from its own "
                "page"
            )
        return operator(self._tenant)


def authorize(caller: Caller, role: Role | None) -> None:
    """Check that the caller has the role of an endpoint; None: an undeclared endpoint, for the operator only.

    Raises:
        Forbidden: the caller does not have the role.
    """
    if caller.is_operator:
        return
    if role is None:
        raise Forbidden("this is for the operator only: send the key in BRAID_API_KEY")
    if not caller.has_role(role):
        has = ", ".join(sorted(caller.roles)) or "none"
        raise Forbidden(f"this needs the role {role.value}; the key or token has: {has}")


def refuse_keys_in_url(names: Iterable[str], query_string: str) -> None:
    """Reject a credential in the query string: proxies, logs and histories keep URLs.

    Raises:
        MalformedRequest: a parameter is named like a credential, or the string contains one of our keys.
    """
    found = next((name for name in names if name.lower() in _URL_NAMES), None)
    if found is None and KEY.search(query_string) is None:
        return
    where = f"the parameter {found.lower()!r}" if found is not None else "the query string"
    raise MalformedRequest(
        f"{where} carries a key or token: URLs end up in logs and histories, so it must be considered leaked: "
        "revoke it (`braid keys revoke`), and send the next one as `Authorization: Bearer <key>`"
    )


def _wants_credential(settings: Settings) -> bool:
    return not (
        settings.access.api_key is None and settings.access.keys_secret is None and settings.jwt.jwks_url is None
    )


def _credential(authorization: str | None) -> str:
    """Return the text after ``Bearer``, with checked length and characters."""
    if not authorization:
        raise NotAuthenticated("a key or token is needed: send it as `Authorization: Bearer <key>`")
    if len(authorization) > _MAX_HEADER:
        raise NotAuthenticated(f"the Authorization header is longer than {_MAX_HEADER} characters")
    found = _BEARER.fullmatch(authorization)
    if found is None:
        raise NotAuthenticated(
            "the Authorization header is not one `Bearer <key>` (once, visible ASCII, nothing before or after it)"
        )
    return found[1]


def _origin_host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # nothing that a browser sends
        return None


def _host_name(header: str) -> str:
    return header.rsplit(":", 1)[0] if not header.endswith("]") else header
