"""Audit log: one JSON line per request with actor and action, without queries, results or content.

Lines are pure ASCII (everything else is escaped), so that no name can end a line or begin another one. Each line is one
``write`` to a file opened for appending, so that several processes may share the file; if log rotation moves the file
away, it is opened again.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Flask, Response, current_app, g, has_request_context, request

from app import telemetry
from app.config.service import ServerSettings
from app.errors import ConfigurationError

_log = logging.getLogger("braid.audit")

_DENIED = frozenset({401, 403})
_CUT = 512
"""Maximum characters of one name; ids of documents have at most 512."""


class AuditLog:
    """Writer of the audit log. Thread-safe; a line that can't be written never fails a request."""

    def __init__(self, target: str, actions: Mapping[str, str | None] | None = None) -> None:
        """Open the log.

        Args:
            target: ``off``, ``stderr``, or the path of a file.
            actions: the action of each endpoint; None if only rejections are logged. An endpoint that is missing is
                logged under its own name.

        Raises:
            ConfigurationError: the file can't be opened for appending.
        """
        self.actions = actions or {}
        self._path = None if target in {"off", "stderr"} else Path(target)
        self._off = target == "off"
        self._lock = threading.Lock()
        self._file = 2
        self._identity: tuple[int, int] | None = None
        self._broken = False
        self._torn = False
        if self._path is not None:
            try:
                self._open(self._path)
            except OSError as error:
                raise ConfigurationError(
                    f"BRAID_AUDIT_LOG={target!r} can't be opened for appending: {error.strerror}; "
                    "set it to a file in an existing folder, stderr or off"
                ) from error

    @property
    def enabled(self) -> bool:
        """Return whether lines are written."""
        return not self._off

    def write(self, fields: dict[str, Any]) -> None:
        """Append one line."""
        if self._off:
            return
        line = json.dumps(fields, ensure_ascii=True, separators=(",", ":"), default=str).encode() + b"\n"
        with self._lock:
            try:
                if self._path is not None:
                    self._follow(self._path)
                if self._torn:  # a full disk truncated the previous line: end it
                    line = b"\n" + line
                written = os.write(self._file, line)
            except OSError as error:
                self._fail(error.strerror or str(error))
                return
            self._torn = written < len(line)
            if self._torn:
                self._fail("only a part of a line was written")
                return
            if self._broken:
                self._broken = False
                _log.warning("the audit log is written again")
        telemetry.AUDIT_LINES.labels("written").inc()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._path is not None and self._identity is not None:
                os.close(self._file)
                self._identity = None

    def _open(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY, 0o600)
        found = os.fstat(self._file)
        self._identity = (found.st_dev, found.st_ino)

    def _follow(self, path: Path) -> None:
        """Reopen the file if another one has its name now."""
        try:
            found = path.stat()
            now: tuple[int, int] | None = (found.st_dev, found.st_ino)
        except FileNotFoundError:
            now = None
        if now is not None and now == self._identity:
            return
        before, held = self._file, self._identity is not None
        self._open(path)
        self._torn = False
        if held:
            os.close(before)

    def _fail(self, why: str) -> None:
        telemetry.AUDIT_LINES.labels("failed").inc()
        if not self._broken:
            self._broken = True
            _log.error("the audit log can't be written (%s); requests continue without it, lines are lost", why)


def timestamp() -> str:
    """Return the current time for a line: UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def note(**fields: str | int | None) -> None:
    """Add fields to this request's line: ids and counts only, never content. Does nothing outside a request.

    Args:
        fields: fields such as ``query_id``, ``document_id``, ``results``, ``documents``.
    """
    if has_request_context():
        g.setdefault("audit", {}).update(fields)


def note_read(body: dict[str, Any]) -> None:
    """Add the query's id and its results to this request's line of the audit log."""
    note(query_id=body["query_id"], results=len(body["results"]), cache=body["cache"])


def later_line() -> Callable[..., None]:
    """Return a function that writes the line of work continuing after its response, with a status
    and further fields.
    """
    log: AuditLog = current_app.extensions["braid_audit"]
    fields = (_fields(0, log.actions) or {}) | g.get("audit", {})

    def write(status: int, **more: str | int | None) -> None:
        log.write(_cut(fields | {"time": timestamp(), "status": status} | more))

    return write


def install_audit(app: Flask, server: ServerSettings, actions: Mapping[str, str | None]) -> AuditLog:
    """Write a line for each request: before its answer leaves, or at the end of its stream.

    Raises:
        ConfigurationError: the file of ``BRAID_AUDIT_LOG`` can't be opened.
    """
    log = AuditLog(server.audit_log, actions)
    app.extensions["braid_audit"] = log
    if not log.enabled:
        return log

    @app.after_request
    def _write(response: Response) -> Response:
        fields = _fields(response.status_code, actions)
        if fields is None:
            return response
        notes: dict[str, Any] = g.setdefault("audit", {})
        if response.is_streamed:  # fields noted while streaming are included
            response.call_on_close(lambda: log.write(_cut(fields | notes)))
        else:
            log.write(_cut(fields | notes))
        return response

    return log


def _fields(status: int, actions: Mapping[str, str | None]) -> dict[str, Any] | None:
    """Return the line of this request; None if it is not logged."""
    endpoint = request.endpoint
    action = actions.get(endpoint, endpoint) if endpoint is not None else None
    denied = status in _DENIED
    if not denied and (action is None or request.method == "OPTIONS"):
        return None
    caller = g.get("caller")
    fields: dict[str, Any] = {
        "time": timestamp(),
        "request_id": g.get("request_id", ""),
        "action": "denied" if denied else action,
        "status": status,
        "tenant": caller.scope.tenant if caller is not None else None,
        "subject": caller.scope.subject if caller is not None else None,
        "name": caller.name if caller is not None else None,
        "remote": request.remote_addr,
    }
    if denied:
        fields["asked"] = action or endpoint
    document = (request.view_args or {}).get("document_id")
    if document is not None:
        fields["document_id"] = document
    return fields


def _cut(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value[:_CUT] if isinstance(value, str) else value for name, value in fields.items()}
