"""The Java command line of a node: what the official distribution sets, tuned to start fast on a small machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

from app.embedded.assemble import Home
from app.embedded.java import Java

MAIN_CLASS = "org.opensearch.bootstrap.OpenSearch"
_SERIAL_BELOW_MB = 2048


class ClassArchive:
    """OpenSearch's loaded classes, kept by Java's class data sharing: halves the work of a start (12 s to 6 s of CPU).

    The first node that ends in peace leaves the archive in its own folder, `keep` moves it into the cache, and every
    later start reads it. Java itself checks that it fits the Java and the jar files, and goes without it if not.
    """

    def __init__(self, java: Java, home: Home, cache_dir: Path) -> None:
        key = hashlib.sha256(f"{java.executable.resolve()}|{java.version}|{home.path}".encode()).hexdigest()[:12]
        self._kept = cache_dir.absolute() / "opensearch" / f"classes-{key}.jsa"

    def options(self, folder: Path, *, record: bool) -> list[str]:
        """The options for the node in `folder`; `record`: let it write the archive if there is none yet."""
        quiet = ["-Xlog:disable", "-Xlog:all=error:stderr"]  # what can't be archived is of no interest
        if self._kept.exists():
            return [*quiet, f"-XX:SharedArchiveFile={self._kept}"]
        return [*quiet, f"-XX:ArchiveClassesAtExit={self._recorded(folder)}"] if record else quiet

    def keep(self, folder: Path) -> None:
        """Move what the node in `folder` recorded, if anything, into the cache."""
        recorded = self._recorded(folder)
        # starts are slower without it, nothing else: a read-only cache or a full disk is no reason to fail
        with contextlib.suppress(OSError):
            if not self._kept.exists():
                self._kept.parent.mkdir(parents=True, exist_ok=True)
                aside = self._kept.with_suffix(f".{os.getpid()}")
                # written by the server's account: a link there must not make root read something else
                with (
                    os.fdopen(os.open(recorded, os.O_RDONLY | os.O_NOFOLLOW), "rb") as source,
                    aside.open("wb") as sink,
                ):
                    shutil.copyfileobj(source, sink)
                aside.chmod(0o644)
                aside.replace(self._kept)
            recorded.unlink()

    @staticmethod
    def _recorded(folder: Path) -> Path:
        return folder / "tmp" / "classes.jsa"


def java_command(java: Java, home: Home, folder: Path, heap_mb: int, archive_options: list[str]) -> list[str]:
    """The command that runs a node of `home` in the foreground, with `folder` as its config, tmp and log place."""
    # one collector thread costs less memory and starts faster; pauses of a small heap are short with it too
    collector = "-XX:+UseSerialGC" if heap_mb < _SERIAL_BELOW_MB else "-XX:+UseG1GC"
    return [
        str(java.executable),
        f"-Xms{heap_mb}m",
        f"-Xmx{heap_mb}m",
        collector,
        f"-XX:MaxDirectMemorySize={max(heap_mb // 2, 128)}m",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-OmitStackTraceInFastThrow",
        f"-XX:ErrorFile={folder / 'logs' / 'hs_err.log'}",
        # only where the module exists and Lucene 9 uses it
        *(["--add-modules=jdk.incubator.vector"] if java.major >= 20 else []),
        *archive_options,
        "-Xss1m",
        "-Djava.security.manager=allow",
        "-Djava.awt.headless=true",
        "-Djava.locale.providers=SPI,COMPAT",
        "-Dfile.encoding=UTF-8",
        f"-Djava.io.tmpdir={folder / 'tmp'}",
        f"-Djna.tmpdir={folder / 'tmp'}",
        "-Djna.nosys=true",
        "-Dio.netty.noUnsafe=true",
        "-Dio.netty.noKeySetOptimization=true",
        "-Dio.netty.recycler.maxCapacityPerThread=0",
        "-Dio.netty.allocator.numDirectArenas=0",
        "-Dlog4j.shutdownHookEnabled=false",
        "-Dlog4j2.disable.jmx=true",
        "-Dlog4j2.formatMsgNoLookups=true",
        "-Dopensearch.networkaddress.cache.ttl=60",
        "-Dopensearch.networkaddress.cache.negative.ttl=10",
        *([f"-Djava.library.path={home.native}"] if home.native else []),
        f"-Dopensearch.path.home={home.path}",
        f"-Dopensearch.path.conf={folder / 'config'}",
        "-Dopensearch.distribution.type=tar",
        "-Dopensearch.bundled_jdk=false",
        "-cp",
        f"{home.path / 'lib'}/*",
        MAIN_CLASS,
    ]
