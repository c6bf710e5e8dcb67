"""A server process that never outlives its starter (see `supervise`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from app.embedded import supervise
from app.embedded.account import Account
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
        """Start `argv` under `account`, its output into the file `log` (begun anew).

        Args:
            argv: the command; the server must stay in the foreground.
            log: file for stdout and stderr.
            cwd: working folder.
            env: the whole environment of the server; nothing is inherited.
            account: None for the caller's own.
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
        self._grace_s = grace_s
        # its own session: Ctrl-C reaches the starter alone, which then stops its servers in order
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
        # not an argument: those of a process can be read by everybody, and the environment may hold keys
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
        """None while the server runs."""
        return self._supervisor.poll()

    def request_stop(self) -> None:
        """Ask the server to end, without waiting."""
        if self._supervisor.poll() is None:
            self._supervisor.terminate()

    def stop(self) -> None:
        """End the server (SIGTERM, then SIGKILL) and reap it; a second call does nothing."""
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
