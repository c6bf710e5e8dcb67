"""A server process that ends with its starter (see `supervise`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from app.dev import supervise
from app.dev.account import Account
from app.errors import ProvisioningError


class ServerProcess:
    """One running server. `pid` is the server's own process id."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        cwd: Path,
        env: Mapping[str, str],
        account: Account | None = None,
        grace_s: float = 30.0,
        keep_open: Sequence[int] = (),
    ) -> None:
        """Start `argv` under `account` with output to the file `log` (which is truncated).

        Args:
            argv: the command; the server must stay in the foreground.
            log: file for stdout and stderr.
            env: the complete environment of the server; nothing is inherited.
            account: account of the server; None for the caller's own.
            grace_s: seconds between SIGTERM and SIGKILL.
            keep_open: file descriptors (locks) that stay open until the server has ended.

        Raises:
            ProvisioningError: the command can't be started.
        """
        order = {
            "argv": list(argv),
            "parent": os.getpid(),
            "log": str(log),
            "cwd": str(cwd),
            "env": dict(env),
            "uid": account.uid if account else None,
            "gid": account.gid if account else None,
            "grace_s": grace_s,
        }
        self._grace_s, self._log = grace_s, log
        # a session of its own: Ctrl-C reaches only the starter, which then stops its servers in order
        self._supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", supervise.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            pass_fds=tuple(keep_open),
            cwd="/",
        )
        # not as an argument: every user can read those, and the environment may contain keys
        order_pipe = self._supervisor.stdin
        assert order_pipe is not None  # noqa: S101 - PIPE above
        with order_pipe:
            order_pipe.write(json.dumps(order))
        out, err = self._supervisor.stdout, self._supervisor.stderr
        assert out is not None and err is not None  # noqa: S101, PT018 - PIPE above
        first = out.readline()
        if not first:
            said = err.read().strip().splitlines()[-1:]
            self._close()
            raise ProvisioningError(f"{argv[0]} can't be started: {' '.join(said)}")
        self.pid = int(first)

    @property
    def exit_code(self) -> int | None:
        """Exit code; None while the server runs."""
        return self._supervisor.poll()

    def log_tail(self, lines: int) -> list[str]:
        """Return the last lines of the server's output."""
        return self._log.read_text("utf-8", "replace").strip().splitlines()[-lines:]

    def request_stop(self) -> None:
        """Signal the server to end, without waiting."""
        if self._supervisor.poll() is None:
            self._supervisor.terminate()

    def stop(self) -> None:
        """Stop the server (SIGTERM, then SIGKILL) and reap it; a second call does nothing."""
        self.request_stop()
        self._close()

    def _close(self) -> None:
        try:
            self._supervisor.wait(self._grace_s + 10)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()  # the kernel then kills the server
            self._supervisor.wait()
        for stream in (self._supervisor.stdout, self._supervisor.stderr):
            if stream is not None:
                stream.close()
