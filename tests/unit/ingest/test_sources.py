"""Which links of a folder are reported."""

from __future__ import annotations

from pathlib import Path

from app.ingest.sources.files import Defaults, Problem, list_files, read_source, roots_of


def test_links_that_lead_to_each_other_hide_nothing_and_those_to_nowhere_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file.txt").write_text("text")
    for link, target in (("own", "own"), ("to", "fro"), ("fro", "to"), ("inside", "file.txt")):
        (folder / link).symlink_to(target)
    (folder / "nowhere").symlink_to("not-there")
    (folder / "outside").symlink_to(tmp_path)
    (root,) = roots_of([folder])
    found = list(list_files(root))
    assert [item for item in found if isinstance(item, Path)] == [folder / "file.txt"]
    assert [item.place for item in found if isinstance(item, Problem)] == ["folder/nowhere", "folder/outside"]


def test_names_are_composed_and_two_forms_of_one_name_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("cafe\u0301.txt", "caf\u00e9.txt", "plain.txt"):
        (folder / name).write_text("x")
    items = list(read_source(roots_of([folder]), Defaults("t")))
    assert [item.document_id for item in items] == ["files/caf\u00e9.txt", "files/caf\u00e9.txt", "files/plain.txt"]
    assert [item.reason for item in items if isinstance(item, Problem)] == ["bad-name"]
