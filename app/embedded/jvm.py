"""The Java command line of a node: what the official distribution sets, tuned to start fast on a small machine."""

from __future__ import annotations

from pathlib import Path

from app.embedded.assemble import Home
from app.embedded.java import Java

MAIN_CLASS = "org.opensearch.bootstrap.OpenSearch"
_SERIAL_BELOW_MB = 2048


def java_command(java: Java, home: Home, folder: Path, heap_mb: int) -> list[str]:
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
