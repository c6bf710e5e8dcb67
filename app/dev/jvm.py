"""Java command line of a node: the official distribution's options, tuned for a fast start on a small machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

from app.provision.java import Java
from app.provision.opensearch import BREAKS, Home

MAIN_CLASS = "org.opensearch.bootstrap.OpenSearch"
_SERIAL_BELOW_MB = 2048


class ClassArchive:
    """OpenSearch's loaded classes in an archive of Java's class data sharing: halves the CPU time of a start (12 s to 6
    s).

    The first node that ends cleanly leaves the archive in its folder, `keep` moves it to the cache, and later starts
    read it. Java checks that it matches the Java and the jar files, and otherwise ignores it. For 2.x only: an archive
    that was recorded under the agent of 3.x saved nothing when it was tried.
    """

    def __init__(self, java: Java, home: Home, cache_dir: Path) -> None:
        key = hashlib.sha256(f"{java.executable.resolve()}|{java.version}|{home.path}".encode()).hexdigest()[:12]
        self._kept = cache_dir.absolute() / "opensearch" / f"classes-{key}.jsa"

    def options(self, folder: Path, *, record: bool) -> list[str]:
        """Return the options for the node in `folder`; `record` has it write the archive if there is none yet."""
        quiet = ["-Xlog:disable", "-Xlog:all=error:stderr"]  # classes that can't be archived do not matter
        if self._kept.exists():
            return [*quiet, f"-XX:SharedArchiveFile={self._kept}"]
        return [*quiet, f"-XX:ArchiveClassesAtExit={self._recorded(folder)}"] if record else quiet

    def keep(self, folder: Path) -> None:
        """Move the archive that the node in `folder` recorded, if any, to the cache."""
        recorded = self._recorded(folder)
        # without it only starts are slower, so a read-only cache or a full disk must not fail
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


def java_command(
    java: Java, home: Home, folder: Path, heap_mb: int, archive_options: list[str], further: list[str]
) -> list[str]:
    """Return the command that runs a node of `home` in the foreground, with `folder` for config, tmp and logs.

    Args:
        further: options of the operator, which come last.
    """
    # a single collector thread takes less memory and starts faster, and its pauses on a small heap are short
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
        # only if the module exists and Lucene uses it
        *(["--add-modules=jdk.incubator.vector"] if java.has_vector_module and java.major >= 20 else []),
        *archive_options,
        "-Xss1m",
        *_options_of_major(home),
        "-Djava.awt.headless=true",
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
        *further,
        "-cp",
        ":".join([f"{home.path / 'lib'}/*", *_word_breaks(java, home)]),
        MAIN_CLASS,
    ]


def _word_breaks(java: Java, home: Home) -> list[str]:
    """Return the classes that break Thai into words, where Java has none: OpenSearch makes no index without."""
    folder = (home.path / BREAKS).resolve()
    return [] if java.breaks_thai else [str(folder / "classes"), f"{folder}/*"]


def _options_of_major(home: Home) -> list[str]:
    """Return what 2.x and 3.x do differently: the guard of files and sockets, and the source of locale data."""
    if home.major == 2:
        return ["-Djava.security.manager=allow", "-Djava.locale.providers=SPI,COMPAT"]
    # the distribution's file has no version in its name
    agent = next(file for file in home.path.glob("agent/opensearch-agent*.jar") if "bootstrap" not in file.name)
    return [f"-javaagent:{agent}", "-Djava.locale.providers=SPI,CLDR"]
