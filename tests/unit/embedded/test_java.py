"""Which Java is taken, and why another is not."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from app.config import load_settings
from app.embedded.java import JVM_ROOTS, check_java, find_java
from app.errors import ProvisioningError

SUITABLE = "java.base@17.0.15\njava.logging@17.0.15\njdk.localedata@17.0.15"


def fake_home(root: Path, name: str, modules: str, *, error: str = "") -> Path:
    """A Java home whose executable answers `--list-modules` with `modules`, or fails with `error`."""
    executable = root / name / "bin" / "java"
    executable.parent.mkdir(parents=True)
    executable.write_text(f"#!/bin/sh\necho '{modules}'\n" if not error else f"#!/bin/sh\necho '{error}' >&2\nexit 1\n")
    executable.chmod(executable.stat().st_mode | stat.S_IXUSR)
    return executable.parent.parent


def modules(version: str) -> str:
    return SUITABLE.replace("17.0.15", version)


@pytest.mark.parametrize("version", ["17", "17.0.15", "18.0.2", "21.0.1", "21-ea"])
def test_versions_17_to_21_are_taken(tmp_path: Path, version: str) -> None:
    java = check_java(fake_home(tmp_path, "jdk", modules(version)) / "bin" / "java")
    assert java.version == version
    assert java.major == int(version[:2])


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        (modules("11.0.2"), r"is Java 11\.0\.2; .* on Java 17 to 21"),
        (modules("22.0.1"), r"is Java 22\.0\.1; .* on Java 17 to 21"),
        (modules("24"), r"is Java 24; Java 24 and later have no security manager.* needs Java 17 to 21"),
        (modules("25.0.3"), r"is Java 25\.0\.3; Java 24 and later have no security manager"),
        ("java.base@17.0.15", "stripped runtime without the module jdk.localedata"),
        ("", "is not a Java of version 17 to 21; `--list-modules` said: nothing"),
    ],
)
def test_others_are_refused_with_the_reason(tmp_path: Path, listed: str, reason: str) -> None:
    with pytest.raises(ProvisioningError, match=reason):
        check_java(fake_home(tmp_path, "jdk", listed) / "bin" / "java")


def test_java_8_which_knows_no_modules_is_refused(tmp_path: Path) -> None:
    home = fake_home(tmp_path, "jdk", "", error="Unrecognized option: --list-modules")
    with pytest.raises(ProvisioningError, match="said: Unrecognized option: --list-modules"):
        check_java(home / "bin" / "java")


def test_what_does_not_run_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "java"
    broken.write_bytes(b"\x7fELF not really")
    broken.chmod(0o755)
    with pytest.raises(ProvisioningError, match="does not run"):
        check_java(broken)


def test_the_order_is_setting_then_path_then_the_usual_folders(tmp_path: Path) -> None:
    named = fake_home(tmp_path, "named", modules("21.0.1"))
    on_path = fake_home(tmp_path, "on-path", modules("17.0.1"))
    installed = fake_home(tmp_path / "jvm", "jdk", modules("17.0.2"))
    path, roots = str(on_path / "bin"), [tmp_path / "jvm"]

    assert find_java(load_settings(java_home=named), path=path, roots=roots).home == named
    unset = load_settings().model_copy(update={"java_home": None})
    assert find_java(unset, path=path, roots=roots).home == on_path
    assert find_java(unset, path="", roots=roots).home == installed


def test_an_unsuitable_setting_falls_through_to_the_next(tmp_path: Path) -> None:
    named = fake_home(tmp_path, "named", modules("25"))
    on_path = fake_home(tmp_path, "on-path", modules("17.0.1"))
    java = find_java(load_settings(java_home=named), path=str(on_path / "bin"), roots=[])
    assert java.home == on_path


def test_a_setting_that_names_no_java_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProvisioningError, match=r"JAVA_HOME=.*nothing has no bin/java.*BRAID_JAVA_HOME"):
        find_java(load_settings(java_home=tmp_path / "nothing"), path="", roots=[])


def test_no_java_at_all_says_how_to_get_one(tmp_path: Path) -> None:
    unset = load_settings().model_copy(update={"java_home": None})
    with pytest.raises(ProvisioningError, match=r"no Java was found; install a JDK 17 or 21"):
        find_java(unset, path="", roots=[tmp_path])


def test_the_real_java_25_of_this_machine_is_refused() -> None:
    homes = [
        home for root in JVM_ROOTS if root.is_dir() for home in root.glob("*25*") if (home / "bin" / "java").exists()
    ]
    if not homes:
        pytest.skip("no Java 25 is installed here")
    unset = load_settings(java_home=homes[0])
    with pytest.raises(
        ProvisioningError, match=r"(?s)no suitable Java.*is Java 25.*no security manager.*BRAID_JAVA_HOME"
    ):
        find_java(unset, path=str(homes[0] / "bin"), roots=[])
