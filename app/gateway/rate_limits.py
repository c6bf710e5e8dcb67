"""Rate limits of callers and tenants: moving windows in Redis, by Flask-Limiter.

If Redis is unavailable (or not configured) the limits are counted per process, so that a caller may get its limit once
per process, but never an error and never no limit.
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
from app.addresses import mask_passwords
from app.config import Settings
from app.errors import ConfigurationError, InvalidInput, RateLimited
from app.gateway.caller import Caller

_log = logging.getLogger("braid.limits")

_TIMEOUT_S = 0.25
"""Timeout of connecting to Redis and of its answers: the first failure ends the waiting."""
_MAX_TEXT = 200
MAX_AMOUNT = 1_000_000
"""Maximum amount of one limit: a moving window stores the time of each request (about 20 bytes of Redis)."""
LONGEST_WINDOW_S = 10 * 366 * 24 * 3600
"""Maximum window of a limit; Redis can't store longer times."""
_NO_WINDOW = re.compile(r"(?:/|per)\s*0+\s*[a-z]", re.IGNORECASE)
"""A window of zero, which the library takes for a window of one."""
_CALLER, _TENANT = "caller", "tenant"
LIMIT_HEADERS = (
    *("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"),
    *("X-RateLimit-Limit-Requests", "X-RateLimit-Remaining-Requests", "X-RateLimit-Reset-Requests"),
)
"""Headers of an answer: the amount, what is left of it, and when there is more; again in OpenAI's form."""


def parse_rate(text: str) -> tuple[RateLimitItem, ...]:
    """Parse limits such as ``600/minute;100000/day``.

    Raises:
        InvalidInput: the text has another form, an amount is not 1 to 1,000,000, or a window exceeds ten years.
    """
    problem = f"{text[:_MAX_TEXT]!r} is not a rate limit: write amount/window, such as 600/minute;100000/day"
    if len(text) > _MAX_TEXT:
        raise InvalidInput(f"{problem}, in {_MAX_TEXT} characters at most")
    try:
        found = () if _NO_WINDOW.search(text) else tuple(parse_many(text))
    except ValueError as error:
        raise InvalidInput(f"{problem}; windows are second, minute, hour, day, month, year") from error
    if not found or any(not 1 <= item.amount <= MAX_AMOUNT for item in found):
        raise InvalidInput(f"{text!r} is not a rate limit: an amount is 1 to {MAX_AMOUNT}, a window 1 or more")
    if any(item.get_expiry() > LONGEST_WINDOW_S for item in found):
        raise InvalidInput(f"{text!r} is not a rate limit: a window has ten years at most")
    return found


def check_limits(settings: Settings) -> None:
    """Validate the rate limits in the settings.

    Raises:
        ConfigurationError: names the invalid variable.
    """
    for name, text in (
        ("BRAID_RATE_LIMIT_KEY", settings.limits.rate_limit_key),
        ("BRAID_RATE_LIMIT_TENANT", settings.limits.rate_limit_tenant),
    ):
        if text is None:
            continue
        try:
            parse_rate(text)
        except InvalidInput as error:
            raise ConfigurationError(f"{name}: {error.detail}") from error


def window_key(tenant: str, subject: str | None = None) -> str:
    """Return the key of a window: a hash of the exact names, so that different names never collide.

    Args:
        tenant: name of the tenant.
        subject: the caller within the tenant; None is the operator.
    """
    digest = hashlib.sha256()
    for part in (tenant, subject):
        # a length before each text, and a mark for None, keep different pairs apart
        raw = b"" if part is None else part.encode("utf-8", "surrogatepass")
        digest.update(b"-" if part is None else b"%d:" % len(raw))
        digest.update(raw)
    return digest.hexdigest()


def install_limits(app: Flask, settings: Settings, uncounted: frozenset[str] = frozenset()) -> None:
    """Count each request with a caller (``g.caller``), reject excess ones, and report the remaining amount.

    Requests to the `uncounted` endpoints are not counted. Call it after registering the function that sets
    ``g.caller``.

    Raises:
        ConfigurationError: a limit, or the address of Redis, is invalid.
    """
    check_limits(settings)
    limiter = _limiter(settings, uncounted)
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
            RateLimited(f"the limit of {whose} is exhausted ({rate}): retry in {after} s", retry_after_s=after)
        )

    @app.after_request
    def _add_headers(response: Response) -> Response:
        found = limiter.current_limits
        if not found:
            return response
        away = settings.redis.url is not None and limiter.limiter.storage is not limiter.storage
        telemetry.RATE_LIMIT_CHECKS.labels("process" if away or settings.redis.url is None else "redis").inc()
        state.note(away)
        try:
            shown = min(found, key=lambda limit: (not limit.breached, limit.remaining, -limit.reset_at))
            left = shown.remaining
        except redis.RedisError:  # unavailable since the request was counted: the next request notices
            return response
        amount, more, seconds = str(shown.limit.amount), str(max(0, left)), _seconds(shown)
        values = (amount, more, str(seconds), amount, more, duration(seconds))
        response.headers.update(dict(zip(LIMIT_HEADERS, values, strict=True)))
        return response


class _Fallback:
    """Logs once when Redis becomes unavailable, and once when it is available again."""

    def __init__(self) -> None:
        self._away = False

    def note(self, away: bool) -> None:
        if away == self._away:
            return
        self._away = away
        if away:
            _log.warning("Redis is unavailable: rate limits are counted in this process alone")
        else:
            _log.warning("Redis is available again: rate limits are counted there again")


def _limiter(settings: Settings, uncounted: frozenset[str]) -> Limiter:
    def counted() -> Caller | None:
        """Return the caller whose request counts; None for an open endpoint and for an uncounted one."""
        caller: Caller | None = g.get("caller")
        return None if request.endpoint in uncounted else caller

    def caller_limit() -> str:
        caller = counted()
        if caller is None:
            return ""
        if caller.rate is not None:
            try:
                parse_rate(caller.rate)
            except InvalidInput:  # checked when the key was created: a record of another version
                return settings.limits.rate_limit_key or ""
            return caller.rate
        return settings.limits.rate_limit_key or ""

    def tenant_limit() -> str:
        return (settings.limits.rate_limit_tenant or "") if counted() is not None else ""

    def caller_key() -> str:
        scope = g.caller.scope
        return window_key(scope.tenant, scope.subject)

    def tenant_key() -> str:
        return window_key(g.caller.scope.tenant)

    url = settings.redis.url or "memory://"
    options: dict[str, Any] = {}
    if settings.redis.url is not None:
        url = url.replace("unix://", "redis+unix://", 1) if url.startswith("unix://") else url
        # a connection that the server has closed
        again = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
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
            in_memory_fallback_enabled=settings.redis.url is not None,
            headers_enabled=False,
        )
    except (StorageError, ValueError) as error:
        raise ConfigurationError(
            f"BRAID_REDIS_URL: {mask_passwords(str(error))}; write redis://host:port/number"
        ) from error


def duration(seconds: int) -> str:
    """Return whole seconds as OpenAI writes a time: ``59s``, ``6m0s``, ``1h0m5s``."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest}s"


def _seconds(limit: RequestLimit | None) -> int:
    """Return the seconds until another request fits in the window, at least 1."""
    if limit is None:
        return 1
    try:
        return max(1, math.ceil(limit.window.reset_time - time.time()))
    except redis.RedisError:
        return 1
