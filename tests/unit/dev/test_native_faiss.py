"""The libraries that k-NN will ask for: named by the processor, loaded before a node starts, and no others."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from app.config import load_settings
from app.errors import ProvisioningError
from app.provision.native_faiss import check_native, variant
from app.provision.opensearch import find_home

SHARED = Path(__file__).parents[4] / "shared" / "native"
FLAGS = {
    "": "fpu sse sse2 avx",
    "_avx2": "fpu sse2 avx avx2 avx512f avx512cd avx512vl avx512dq",  # one of those for AVX-512 is missing
    "_avx512": "fpu avx2 avx512f avx512dq avx512cd avx512bw avx512vl avx512_bf16",
    "_avx512_spr": "fpu avx2 avx512f avx512dq avx512cd avx512bw avx512vl avx512_bf16 avx512_vpopcntdq avx512_fp16",
}


@pytest.fixture(params=list(FLAGS), ids=lambda ending: ending or "plain")
def ending(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cpuinfo(tmp_path: Path, ending: str) -> Path:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nmodel name\t: any avx512f\nflags\t\t: {FLAGS[ending]}\n\nprocessor\t: 1\n")
    return file


@pytest.fixture(params=["2.19.1", "3.6.0"])
def plugin(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "home" / "plugins" / "opensearch-knn"
    folder.mkdir(parents=True)
    classes = ["FaissService", *(["SimdVectorComputeService"] if request.param == "3.6.0" else [])]
    with zipfile.ZipFile(folder / f"opensearch-knn-{request.param}.0.jar", "w") as jar:
        for name in classes:
            jar.writestr(f"org/opensearch/knn/jni/{name}.class", b"")
    return folder


@pytest.fixture
def libraries(tmp_path: Path, plugin: Path, ending: str) -> Path:
    """A folder in which only the libraries that will be asked for are libraries."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here to make a library that loads")
    folder = tmp_path / "libraries"
    folder.mkdir()
    kinds = ["faiss", "simd"] if "3.6.0" in next(plugin.iterdir()).name else ["faiss"]
    for other in FLAGS:
        for kind in kinds:
            (folder / f"libopensearchknn_{kind}{other}.so").write_text("not a library")
    for name in ("common", *(f"{kind}{ending}" for kind in kinds)):
        output = folder / f"libopensearchknn_{name}.so"
        subprocess.run([compiler, "-shared", "-o", output, "-xc", "/dev/null"], check=True)
    return folder


def test_the_processor_chooses_the_ending(cpuinfo: Path, ending: str) -> None:
    assert variant(cpuinfo) == ending


def test_a_processor_without_such_flags_has_the_plain_library(tmp_path: Path) -> None:
    assert variant(tmp_path / "absent") == ""
    (tmp_path / "arm").write_text("processor\t: 0\nFeatures\t: fp asimd sve avx2\n")
    assert variant(tmp_path / "arm") == ""


def test_only_what_is_asked_for_is_loaded(libraries: Path, plugin: Path, cpuinfo: Path) -> None:
    check_native(libraries, plugin, cpuinfo)


def test_each_library_that_is_asked_for_must_load(libraries: Path, plugin: Path, cpuinfo: Path, ending: str) -> None:
    for name in ("common", f"faiss{ending}"):
        library = libraries / f"libopensearchknn_{name}.so"
        kept = library.read_bytes()
        library.write_text("not a library")
        with pytest.raises(ProvisioningError, match=r"don't load here: .*(invalid ELF header|file too short)"):
            check_native(libraries, plugin, cpuinfo)
        library.unlink()
        with pytest.raises(ProvisioningError, match=rf"BRAID_KNN_LIB=.* lacks {library.name}, which k-NN asks for"):
            check_native(libraries, plugin, cpuinfo)
        library.write_bytes(kept)


def test_libraries_of_the_other_major_version_are_refused(
    libraries: Path, plugin: Path, cpuinfo: Path, ending: str
) -> None:
    simd = libraries / f"libopensearchknn_simd{ending}.so"
    if simd.is_file():  # those of 2.19 for a node of 3.6
        for library in libraries.glob("libopensearchknn_simd*.so"):
            library.unlink()
        with pytest.raises(ProvisioningError, match=f"lacks {simd.name}, which k-NN asks for"):
            check_native(libraries, plugin, cpuinfo)
    else:
        shutil.copy(libraries / "libopensearchknn_common.so", simd)
        with pytest.raises(ProvisioningError, match=r"has libraries of OpenSearch 3 .*and the node is older"):
            check_native(libraries, plugin, cpuinfo)


def test_a_distribution_is_not_started_with_a_folder_that_lacks_them(tmp_path: Path, plugin: Path) -> None:
    home = plugin.parents[1]
    (home / "plugins" / "neural-search").mkdir()
    (home / "lib").mkdir()
    (home / "lib" / "opensearch-2.19.1.jar").touch()
    for name in ("opensearch-knn", "neural-search"):
        (home / "plugins" / name / "plugin-descriptor.properties").write_text(f"name={name}\n")
    with pytest.raises(ProvisioningError, match=r"lacks libopensearchknn_common\.so"):
        find_home(load_settings(opensearch_home=home, knn_lib=tmp_path).machine)


@pytest.mark.parametrize("plugin", ["2.19.1", "3.6.0"], indirect=True)
def test_the_real_libraries_load_on_this_processor(plugin: Path) -> None:
    folder = SHARED / next(plugin.iterdir()).name.removeprefix("opensearch-knn-").removesuffix(".jar")
    if not folder.is_dir():
        pytest.skip(f"the native libraries are not at hand: {folder}")
    check_native(folder, plugin)
