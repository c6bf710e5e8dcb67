"""Who is asking, and what they may see.

Until per-user keys and tokens exist, a service has one operator: whoever holds ``BRAID_API_KEY`` or, where none is set,
whoever can reach the loopback address. The operator reads and writes the whole tenant.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from app.config import Settings
from app.errors import ConfigurationError, NotAuthenticated
from app.store.filters import Scope
from reranker.loopback import is_loopback


def check_exposure(settings: Settings) -> None:
    """Refuse to listen where strangers are without a key.

    Raises:
        ConfigurationError: `host` is not loopback and no key is set.
    """
    if settings.api_key is None and not is_loopback(settings.host):
        raise ConfigurationError(
            f"BRAID_HOST={settings.host!r} can be reached from other machines, and no key protects the service: "
            "set BRAID_API_KEY, or listen on 127.0.0.1"
        )


def identify(settings: Settings, authorization: str | None, host_header: str, origin: str | None) -> Scope:
    """The caller's scope.

    Without a key only requests that name a loopback host are taken (a page of another site could otherwise reach
    the service through DNS rebinding), and none that a browser sent from another origin.

    Raises:
        NotAuthenticated: missing or wrong key, or a foreign host or origin where no key is set.
    """
    if settings.api_key is None:
        if not is_loopback(_host_name(host_header)):
            raise NotAuthenticated(
                f"host {host_header!r} is not a loopback name; without BRAID_API_KEY only this machine may ask"
            )
        if origin is not None and urlsplit(origin).netloc != host_header:
            raise NotAuthenticated(
                f"origin {origin!r} is not this service; without BRAID_API_KEY browsers may ask from its own page only"
            )
        return Scope(tenant=settings.tenant)
    scheme, _, key = (authorization or "").partition(" ")
    expected = settings.api_key.get_secret_value()
    if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), expected.encode()):
        raise NotAuthenticated("send the service's key as `Authorization: Bearer <key>`")
    return Scope(tenant=settings.tenant)


def _host_name(header: str) -> str:
    return header.rsplit(":", 1)[0] if not header.endswith("]") else header
