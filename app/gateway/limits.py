"""How much a caller, and a tenant, may ask: moving windows in Redis, by Flask-Limiter.

Where Redis is away (or none is named) the same limits are counted in this process alone, so that a caller may get as
many times its limit as there are processes, but never an error and never no limit.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import time
from typing import Any

import redis
from flask import Flask, Response, g, request
from flask_limiter import ApplicationLimit, Limiter, RequestLimit
from flask_limiter.errors import RateLimitExceeded
from limits import RateLimitItem, parse_many
from limits.errors import ConfigurationError as StorageError
from redis.backoff import NoBackoff
from redis.retry import Retry

from app import telemetry
from app.addresses import masked
from app.config import Settings
from app.errors import ConfigurationError, InvalidInput, RateLimited
from app.gateway.caller import Caller

_log = logging.getLogger("braid.limits")

_TIMEOUT_S = 0.25
"""For connecting to Redis, or for an answer of it: the first of them that fails ends the waiting."""
_MAX_TEXT = 200
MAX_AMOUNT = 1_000_000
"""Of one limit: a moving window keeps the time of each request (about 20 bytes of Redis)."""
LONGEST_WINDOW_S = 10 * 366 * 24 * 3600
"""Of a limit; Redis keeps times of requests no longer than its clock can count."""
_NO_WINDOW = re.compile(r"(?:/|per)\s*0+\s*[a-z]", re.IGNORECASE)
"""Which the library takes for a window of one."""
_CALLER, _TENANT = "caller", "tenant"


def parse_rate(text: str) -> tuple[RateLimitItem, ...]:
    """The limits that a text such as ``600/minute;100000/day`` names.

    Raises:
        InvalidInput: not such a text, an amount that is not 1 to 1,000,000, or a window of more than ten years.
    """
    problem = f"{text[:_MAX_TEXT]!r} is no rate limit: write amount/window, such as 600/minute;100000/day"
    if len(text) > _MAX_TEXT:
        raise InvalidInput(f"{problem}, in {_MAX_TEXT} characters at most")
    try:
        found = () if _NO_WINDOW.search(text) else tuple(parse_many(text))
    except ValueError as error:
        raise InvalidInput(f"{problem}; windows are second, minute, hour, day, month, year") from error
    if not found or any(not 1 <= item.amount <= MAX_AMOUNT for item in found):
        raise InvalidInput(f"{text!r} is no rate limit: an amount is 1 to {MAX_AMOUNT}, a window 1 or more")
    if any(item.get_expiry() > LONGEST_WINDOW_S for item in found):
        raise InvalidInput(f"{text!r} is no rate limit: a window has ten years at most")
    return found


def check_limits(settings: Settings) -> None:
    """See that the limits in the settings are some.

    Raises:
        ConfigurationError: naming the variable that is wrong.
    """
    for name, text in (
        ("BRAID_RATE_LIMIT_KEY", settings.rate_limit_key),
        ("BRAID_RATE_LIMIT_TENANT", settings.rate_limit_tenant),
    ):
        if text is None:
            continue
        try:
            parse_rate(text)
        except InvalidInput as error:
            raise ConfigurationError(f"{name}: {error.detail}") from error


def window_key(tenant: str, subject: str | None = None) -> str:
    """What a window is counted under: a hash of the names as they are, so none can look like two, or hold a separator.

    Args:
        tenant: its name.
        subject: the caller within the tenant; None is the operator.
    """
    digest = hashlib.sha256()
    for part in (tenant, subject):
        # a length before each text, and a mark for "none", keep any two pairs apart
        raw = b"" if part is None else part.encode("utf-8", "surrogatepass")
        digest.update(b"-" if part is None else b"%d:" % len(raw))
        digest.update(raw)
    return digest.hexdigest()


def install_limits(app: Flask, settings: Settings) -> None:
    """Count each request that has a caller (``g.caller``), refuse what is too much, and say what is left.

    Requests for metrics are not counted. Call it after the function that sets ``g.caller`` was registered.

    Raises:
        ConfigurationError: a limit, or the address of Redis, is wrong.
    """
    check_limits(settings)
    limiter = _limiter(settings)
    logging.getLogger("flask-limiter").setLevel(logging.WARNING)
    limiter.init_app(app)
    state = _Fallback()

    @app.errorhandler(RateLimitExceeded)
    def _refused(error: RateLimitExceeded) -> Any:
        breached = limiter.current_limit
        runtime = error.limit
        whose = "this tenant's callers together" if runtime is not None and runtime.scope == _TENANT else "this caller"
        rate = str(breached.limit) if breached is not None else "limit"
        after = _seconds(breached)
        telemetry.RATE_LIMITED.labels(_TENANT if runtime is not None and runtime.scope == _TENANT else _CALLER).inc()
        return app.handle_user_exception(
            RateLimited(f"the limit of {whose} is used up ({rate}): ask again in {after} s", retry_after_s=after)
        )

    @app.after_request
    def _tell(response: Response) -> Response:
        found = limiter.current_limits
        if not found:
            return response
        away = settings.redis_url is not None and limiter.limiter.storage is not limiter.storage
        telemetry.RATE_LIMIT_CHECKS.labels("process" if away or settings.redis_url is None else "redis").inc()
        state.note(away)
        try:
            shown = min(found, key=lambda limit: (not limit.breached, limit.remaining, -limit.reset_at))
            left = shown.remaining
        except redis.RedisError:  # gone since the request was counted: the next request finds out
            return response
        response.headers["RateLimit-Limit"] = str(shown.limit.amount)
        response.headers["RateLimit-Remaining"] = str(max(0, left))
        response.headers["RateLimit-Reset"] = str(_seconds(shown))
        return response


class _Fallback:
    """Says in the log when Redis went away and came back, once each."""

    def __init__(self) -> None:
        self._away = False

    def note(self, away: bool) -> None:
        if away == self._away:
            return
        self._away = away
        if away:
            _log.warning("Redis is away: rate limits are counted in this process alone")
        else:
            _log.warning("Redis is back: rate limits are counted there again")


def _limiter(settings: Settings) -> Limiter:
    def counted() -> Caller | None:
        """The caller; None for probes, the page's files and the documentation, and for who watches the service."""
        caller: Caller | None = g.get("caller")
        return None if request.endpoint == "ops.metrics" else caller

    def caller_limit() -> str:
        caller = counted()
        if caller is None:
            return ""
        if caller.rate is not None:
            try:
                parse_rate(caller.rate)
            except InvalidInput:  # was checked when the key was made: a record of another version
                return settings.rate_limit_key or ""
            return caller.rate
        return settings.rate_limit_key or ""

    def tenant_limit() -> str:
        return (settings.rate_limit_tenant or "") if counted() is not None else ""

    def caller_key() -> str:
        scope = g.caller.scope
        return window_key(scope.tenant, scope.subject)

    def tenant_key() -> str:
        return window_key(g.caller.scope.tenant)

    url = settings.redis_url or "memory://"
    options: dict[str, Any] = {}
    if settings.redis_url is not None:
        url = url.replace("unix://", "redis+unix://", 1) if url.startswith("unix://") else url
        again = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))  # a connection the server has closed
        options = {"socket_timeout": _TIMEOUT_S, "socket_connect_timeout": _TIMEOUT_S, "retry": again}
        options |= {"max_connections": 1024, "key_prefix": "braid:limits"}
    try:
        return Limiter(
            caller_key,
            application_limits=[
                ApplicationLimit(caller_limit, caller_key, scope=_CALLER),
                ApplicationLimit(tenant_limit, tenant_key, scope=_TENANT),
            ],
            strategy="moving-window",
            storage_uri=url,
            storage_options=options,
            in_memory_fallback_enabled=settings.redis_url is not None,
            headers_enabled=False,
        )
    except (StorageError, ValueError) as error:
        raise ConfigurationError(f"BRAID_REDIS_URL: {masked(str(error))}; write redis://host:port/number") from error


def _seconds(limit: RequestLimit | None) -> int:
    """Until another request fits in the window, at least 1."""
    if limit is None:
        return 1
    try:
        return max(1, math.ceil(limit.window.reset_time - time.time()))
    except redis.RedisError:
        return 1
