"""Which links of a folder are reported."""

from __future__ import annotations

from pathlib import Path

from app.ingest.sources.files import Problem, list_files, roots_of


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
