"""The native libraries that k-NN will ask for on this processor: they are named and loaded before a node starts."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from app.errors import ProvisioningError

CPUINFO = Path("/proc/cpuinfo")
_VARIANTS = {
    "_avx512_spr": ("avx512_fp16", "avx512_bf16", "avx512_vpopcntdq"),
    "_avx512": ("avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"),
    "_avx2": ("avx2",),
}
"""Endings of library names, the most demanding first, with the flags of the processor that k-NN looks for."""
_SIMD_CLASS = "org/opensearch/knn/jni/SimdVectorComputeService.class"
"""Class of k-NN that loads ``libopensearchknn_simd``; 2.19 has none, 3.6 has it."""


def has_faiss(folder: Path) -> bool:
    """Return whether `folder` has a FAISS library for any processor."""
    return any(folder.glob("libopensearchknn_faiss*.so"))


def check_native(folder: Path, plugin: Path, cpuinfo: Path = CPUINFO) -> None:
    """Check the libraries that k-NN will ask for, because a node ends at its first graph without them.

    No other library is loaded: one for instructions that the processor lacks ends the process that loads it.

    Args:
        folder: the folder in BRAID_KNN_LIB.
        plugin: the node's folder of the plugin k-NN.
        cpuinfo: the kernel's description of the processor.

    Raises:
        ProvisioningError: one is missing or does not load, or they belong to another version of k-NN.
    """
    asks_simd = any(_contains(jar, _SIMD_CLASS) for jar in plugin.glob("opensearch-knn-*.jar"))
    official = "the folder plugins/opensearch-knn/lib of an official OpenSearch distribution of the node's version"
    if not asks_simd and any(folder.glob("libopensearchknn_simd*.so")):
        raise ProvisioningError(
            f"BRAID_KNN_LIB={folder} has libraries of OpenSearch 3 (libopensearchknn_simd*.so), and the node is older: "
            f"set it to {official}, or unset it (then vectors are searched exactly, without a FAISS graph)"
        )
    ending = variant(cpuinfo)
    names = ["common", f"faiss{ending}", *([f"simd{ending}"] if asks_simd else [])]
    libraries = [folder / f"libopensearchknn_{name}.so" for name in names]
    if missing := [library.name for library in libraries if not library.is_file()]:
        raise ProvisioningError(
            f"BRAID_KNN_LIB={folder} lacks {', '.join(missing)}, which k-NN asks for on this processor: put it there, "
            f"set BRAID_KNN_LIB to {official}, or unset it (then vectors are searched exactly, without a FAISS graph)"
        )
    # in a separate process, which a broken library may kill
    load = "import ctypes, sys\nfor name in sys.argv[1:]: ctypes.CDLL(name, ctypes.RTLD_GLOBAL)"
    answer = subprocess.run(
        [sys.executable, "-I", "-S", "-c", load, *map(str, libraries)],
        capture_output=True,
        text=True,
        check=False,
        env={"LD_LIBRARY_PATH": str(folder)},
    )
    if answer.returncode != 0:
        said = " ".join(answer.stderr.strip().splitlines()[-1:]) or f"exit code {answer.returncode}"
        raise ProvisioningError(
            f"the FAISS libraries in BRAID_KNN_LIB={folder} don't load here: {said}; install what they need (libgomp, "
            "a BLAS), take those of this machine's architecture, or unset BRAID_KNN_LIB"
        )


def variant(cpuinfo: Path) -> str:
    """Return the ending of the libraries that k-NN chooses by the text of `cpuinfo`, as it reads it; empty: plain."""
    lines = cpuinfo.read_text("utf-8", "replace").splitlines() if cpuinfo.is_file() else []
    flags = next((line for line in lines if line.startswith("flags")), "")
    return next((ending for ending, needed in _VARIANTS.items() if all(flag in flags for flag in needed)), "")


def _contains(jar: Path, name: str) -> bool:
    with zipfile.ZipFile(jar) as archive:
        return name in archive.namelist()
