"""Embedded OpenSearch: one or several real nodes that end with their starter and keep their data in a folder."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import http.client
import json
import os
import re
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast, get_args

from app.assets import asset_folder
from app.config.section import DEFAULT_RELEASE, OpenSearchRelease
from app.config.service import MachineSettings
from app.dev.account import Account, check_readable, own_folder, private_folder, server_account
from app.dev.guard import CREDENTIALS_FILE, USER, add_guard
from app.dev.jvm import ClassArchive, java_command
from app.dev.ports import ReservedPorts
from app.dev.process import ServerProcess
from app.errors import ProvisioningError
from app.provision.folders import write_new_file
from app.provision.java import Java, find_java
from app.provision.opensearch import BREAKS, Home, find_home

CLUSTER_NAME = "braid"
NODE_FOLDER = "opensearch"
"""Name of the cluster's folder in the data folder of `braid up`."""
FAISS_ATTRIBUTE = "braid_faiss"
"""Node attribute, ``native`` or ``none``: whether the node can build FAISS graphs. The store reads it."""
START_TIMEOUT_S = 300.0
_LOCK_PATIENCE_S = 10.0
_LOG_TAIL_LINES = 12
_STACK_FRAME = re.compile(r"\s+(at |\.\.\. \d+ more)")


class EmbeddedCluster:
    """A running cluster, ended by `stop`, by leaving its context, or by the end of this process, whatever the cause."""

    def __init__(
        self,
        processes: Sequence[ServerProcess],
        ports: Sequence[int],
        *,
        data_dir: Path,
        home: Home,
        archive: ClassArchive,
    ) -> None:
        self._processes = tuple(processes)
        self._archive = archive
        self.ports = tuple(ports)
        self.data_dir = data_dir
        self.version = home.version
        self.native_faiss = home.native is not None

    @property
    def urls(self) -> tuple[str, ...]:
        """Base address of each node, in the nodes' order."""
        return tuple(f"http://127.0.0.1:{port}" for port in self.ports)

    @property
    def url(self) -> str:
        """Base address of the first node."""
        return self.urls[0]

    @property
    def addresses(self) -> str:
        """Addresses of all nodes, separated by commas, as for ``BRAID_OPENSEARCH_URL``."""
        return ",".join(self.urls)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the nodes' Java processes."""
        return tuple(process.pid for process in self._processes)

    def check_alive(self) -> None:
        """Check that every node is running.

        Raises:
            ProvisioningError: a node has ended; the message has the end of its log.
        """
        for number in self.ended:
            raise ProvisioningError(self.obituary(number))

    @property
    def ended(self) -> tuple[int, ...]:
        """Numbers of the nodes, from 1, that have ended."""
        return tuple(n for n, process in enumerate(self._processes, start=1) if process.exit_code is not None)

    @property
    def can_go_on(self) -> bool:
        """Return whether more than half of the nodes run: fewer have no quorum."""
        return 2 * (len(self._processes) - len(self.ended)) > len(self._processes)

    def obituary(self, number: int) -> str:
        """Describe how a node ended, with the end of its log."""
        folder = self.data_dir / f"node-{number}"
        return (
            f"node {number} ended with exit code {self._processes[number - 1].exit_code}; the end of its log "
            f"({_log(folder)}):\n{_tail(folder)}"
        )

    def stop(self) -> None:
        """Stop all nodes and wait for them; a second call does nothing."""
        for process in self._processes:
            process.request_stop()
        for process in self._processes:
            process.stop()
        self._archive.keep(self.data_dir / "node-1")

    def __enter__(self) -> EmbeddedCluster:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def start_cluster(
    machine: MachineSettings,
    *,
    data_dir: Path,
    nodes: int = 1,
    heap_mb: int | None = None,
    secret: str | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> EmbeddedCluster:
    """Start `nodes` nodes on free loopback ports as one cluster, and wait until it is yellow or green.

    Args:
        machine: `opensearch_version`, `opensearch_home`, `java_home`, `knn_lib` and `cache_dir`.
        data_dir: folder for indexes, snapshots (`snapshots/`, the nodes' ``path.repo``) and logs between runs.
            One of an older OpenSearch is upgraded, and can't be opened by the older one again.
        nodes: 1 to 9. A folder that holds a cluster of N nodes must be started with N.
        heap_mb: Java heap of each node; None: 1024 for one node, 512 each for more.
        secret: the password of the user `guard.USER`, who has the only access; letters, digits, ``-`` and ``_``.
            None, for tests only: every user and every web page on this machine has full access.

    Raises:
        ProvisioningError: no suitable Java, failed assembly, a `data_dir` that is in use, of another size, of a newer
            OpenSearch or closed to the server's account, or a node that died or did not start.
    """
    if not 1 <= nodes <= 9:
        raise ProvisioningError(f"{nodes} nodes requested: the embedded cluster has 1 to 9")
    heap = heap_mb if heap_mb is not None else (1024 if nodes == 1 else 512)
    if heap < 256:
        raise ProvisioningError(f"a heap of {heap} MB is too small for OpenSearch: set 256 MB or more")
    report = on_progress or (lambda line: None)
    account = server_account()
    data_dir = private_folder(account, data_dir.absolute())
    home = find_home(machine, release=kept_release(data_dir), on_progress=report)
    java = find_java(
        machine,
        home.major,
        extra=[home.java_home] if home.java_home else [],
        word_breaks=(home.path / BREAKS).is_dir(),
    )
    if secret is not None:
        home = add_guard(home, java, machine, on_progress=report)
    _check_access(account, home, java, data_dir)
    archive = ClassArchive(java, home, machine.cache_dir)
    lock = _lock_folder(data_dir)
    try:
        fresh = _check_kept(data_dir, nodes, home.version)
        with ReservedPorts(2 * nodes) as reserved, contextlib.ExitStack() as undo:
            http_ports, transport_ports = reserved.numbers[:nodes], reserved.numbers[nodes:]
            snapshots = own_folder(account, data_dir / "snapshots")
            processes = []
            for index in range(nodes):
                folder = private_folder(account, data_dir / f"node-{index + 1}")
                config = _settings_of(index, folder, snapshots, http_ports, transport_ports, home, fresh)
                _configure(account, folder, config, secret)
                recorded = archive.options(folder, record=index == 0 and home.major == 2)
                command = java_command(java, home, folder, heap, recorded, shlex.split(machine.java_options))
                process = _start(account, home, folder, command, lock)
                undo.callback(process.stop)
                processes.append(process)
            cluster = EmbeddedCluster(processes, http_ports, data_dir=data_dir, home=home, archive=archive)
            _await(cluster, nodes, secret, report)
            (data_dir / "cluster.json").write_text(json.dumps({"nodes": nodes, "version": home.version}))
            undo.pop_all()
            return cluster
    finally:
        os.close(lock)  # the supervisors keep their copies while the nodes run


def _check_access(account: Account | None, home: Home, java: Java, data_dir: Path) -> None:
    check_readable(
        account,
        home.path / "lib",
        what="the OpenSearch in",
        remedy="set BRAID_CACHE_DIR to a folder that every user can read",
    )
    check_readable(
        account,
        java.executable,
        what="the Java",
        remedy="install it where every user can read it, such as /usr/lib/jvm",
    )
    remedy = "choose one whose parents every user can enter, such as /var/lib"
    check_readable(account, data_dir, what="the data folder", remedy=remedy, enter=True)
    if home.native:
        check_readable(
            account, home.native, what="the FAISS libraries in", remedy="copy them to where every user can read them"
        )


def _lock_folder(data_dir: Path) -> int:
    """Lock the folder and return the descriptor. Waits briefly for the nodes of a starter that has just crashed."""
    lock = os.open(data_dir / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
            if time.monotonic() < deadline and not (owner.isdigit() and Path(f"/proc/{owner}").exists()):
                time.sleep(0.2)
                continue
            os.close(lock)
            raise ProvisioningError(
                f"the data folder {data_dir} is in use by the running process {owner or '?'}: stop it, or choose "
                "another folder with --data"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        return lock


def _kept_cluster(data_dir: Path) -> dict[str, Any] | None:
    """Return the `nodes` and the `version` of the cluster in the folder; None if it has held none yet."""
    try:
        return cast("dict[str, Any]", json.loads((data_dir / "cluster.json").read_text()))
    except FileNotFoundError:
        return None


def kept_release(data_dir: Path) -> OpenSearchRelease:
    """Return the release with which the folder was last opened, the default for a new one."""
    kept = _kept_cluster(data_dir)
    found = next(
        (name for name in get_args(OpenSearchRelease) if kept and kept["version"].startswith(f"{name}.")), None
    )
    return found or DEFAULT_RELEASE


def _check_kept(data_dir: Path, nodes: int, version: str) -> bool:
    """Return True if the folder has held no cluster yet."""
    kept = _kept_cluster(data_dir)
    if kept is None:
        return True
    if _numbers(kept["version"]) > _numbers(version):
        raise ProvisioningError(
            f"the data folder {data_dir} was opened by OpenSearch {kept['version']}, which {version} can't read: start "
            f"it with --opensearch {'.'.join(kept['version'].split('.')[:2])}, or choose another folder with --data "
            "and ingest the sources again"
        )
    if kept["nodes"] != nodes:
        raise ProvisioningError(
            f"the data folder {data_dir} contains a cluster of {kept['nodes']} node(s), {nodes} requested: start it "
            "with "
            f"--nodes {kept['nodes']}, or choose another folder with --data"
        )
    return False


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _settings_of(
    index: int,
    folder: Path,
    snapshots: Path,
    http_ports: Sequence[int],
    transport_ports: Sequence[int],
    home: Home,
    fresh: bool,
) -> dict[str, object]:
    """Return the node's opensearch.yml."""
    nodes = len(http_ports)
    config: dict[str, object] = {
        "cluster.name": CLUSTER_NAME,
        "node.name": f"{CLUSTER_NAME}-{index + 1}",
        f"node.attr.{FAISS_ATTRIBUTE}": "native" if home.native else "none",
        "path.data": str(folder / "data"),
        "path.logs": str(folder / "logs"),
        "path.repo": [str(snapshots)],
        "network.host": "127.0.0.1",
        "http.port": http_ports[index],
        "transport.port": transport_ports[index],
        # with percentages, a laptop's nearly full disk would make every index read-only
        "cluster.routing.allocation.disk.watermark.low": "1gb",
        "cluster.routing.allocation.disk.watermark.high": "500mb",
        "cluster.routing.allocation.disk.watermark.flood_stage": "250mb",
    }
    if home.security:
        config["plugins.security.disabled"] = True
    if nodes == 1:
        config["discovery.type"] = "single-node"
        return config
    config["discovery.seed_hosts"] = [f"127.0.0.1:{port}" for port in transport_ports]
    if fresh:
        config["cluster.initial_cluster_manager_nodes"] = [f"{CLUSTER_NAME}-{n + 1}" for n in range(nodes)]
    return config


def _configure(account: Account | None, folder: Path, config: dict[str, object], secret: str | None) -> None:
    for name in ("config", "data", "logs", "tmp"):
        own_folder(account, folder / name)
    log = _log(folder)
    if log.exists():  # each run has its own log
        log.replace(log.with_name(f"{CLUSTER_NAME}-previous.log"))
    # JSON is valid YAML
    write_new_file(folder / "config" / "opensearch.yml", json.dumps(config, indent=1))
    logging = (asset_folder("docker/embedded") / "config" / "log4j2.properties").read_text()
    write_new_file(folder / "config" / "log4j2.properties", logging)
    if secret is not None:
        owner = (account.uid, account.gid) if account is not None else None
        write_new_file(folder / "config" / CREDENTIALS_FILE, f"{USER}:{secret}\n", mode=0o600, owner=owner)


def _start(account: Account | None, home: Home, folder: Path, command: Sequence[str], lock: int) -> ServerProcess:
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(folder)}
    if home.native:
        env["LD_LIBRARY_PATH"] = str(home.native)
    return ServerProcess(command, log=folder / "console.log", cwd=folder, env=env, account=account, keep_open=[lock])


def _await(cluster: EmbeddedCluster, nodes: int, secret: str | None, report: Callable[[str], None]) -> None:
    started = time.monotonic()
    report(f"starting OpenSearch {cluster.version} ({nodes} node{'s' if nodes > 1 else ''})")
    last = "no answer yet"
    told = started
    while time.monotonic() - started < START_TIMEOUT_S:
        cluster.check_alive()
        health = _health(cluster.ports[0], nodes, secret)
        if health and not health["timed_out"]:
            took = time.monotonic() - started
            report(f"OpenSearch is {health['status']} after {took:.1f} s at {cluster.url}")
            return
        if health:
            last = (
                f"{health['status']}, {health['number_of_nodes']} of {nodes} node(s), "
                f"{health['unassigned_shards']} shard(s) unassigned"
            )
        if time.monotonic() - told > 5:
            told = time.monotonic()
            report(f"waiting for OpenSearch ({told - started:.0f} s): {last}")
        time.sleep(0.1)
    raise ProvisioningError(
        f"OpenSearch did not become yellow within {START_TIMEOUT_S:.0f} s: {last}; "
        f"its logs are under {cluster.data_dir}"
    )


def _health(port: int, nodes: int, secret: str | None) -> dict[str, object] | None:
    """Return the cluster's health once it is good or after a second; None while the node does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    path = f"/_cluster/health?wait_for_status=yellow&wait_for_nodes={nodes}&timeout=1s"
    known = base64.b64encode(f"{USER}:{secret}".encode()).decode()
    try:
        connection.request("GET", path, headers={} if secret is None else {"Authorization": f"Basic {known}"})
        answer = connection.getresponse()
        body = answer.read()
        # 408: not yet good; 503: no cluster manager yet
        return json.loads(body) if answer.status in {200, 408} else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _log(folder: Path) -> Path:
    return folder / "logs" / f"{CLUSTER_NAME}.log"


def _tail(folder: Path) -> str:
    """Return the last lines of the node's log and of its output."""
    lines = []
    for file in (_log(folder), folder / "console.log"):
        with contextlib.suppress(FileNotFoundError):
            written = file.read_text("utf-8", "replace").splitlines()
            lines += [line for line in written if not _STACK_FRAME.match(line)][-_LOG_TAIL_LINES:]
    return "\n".join(f"  {line[:300]}" for line in lines) or "  (empty)"
