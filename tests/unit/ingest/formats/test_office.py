"""Word and PowerPoint files, made by python-docx and python-pptx, and some broken on purpose."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from docx import Document as Word
from pptx import Presentation
from pptx.util import Inches

from app.ingest.formats import Limits
from app.passage import BlockKind, SourceType
from tests.unit.ingest.formats.build import FILES, of_kind, parse_bytes, rejection, replace_entries


def saved(made: object) -> bytes:
    out = io.BytesIO()
    made.save(out)  # type: ignore[attr-defined]
    return out.getvalue()


def replaced(archive: bytes, name: str, content: bytes) -> bytes:
    """The archive with one part of another content."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for item in source.namelist():
            target.writestr(item, content if item == name else source.read(item))
    return out.getvalue()


def test_word_keeps_headings_lists_and_tables_in_order(tmp_path: Path) -> None:
    word = Word()
    word.core_properties.title = "Travel"
    word.add_heading("Trains", 1)
    word.add_paragraph("Second class below five hours.")
    word.add_heading("Night trains", 2)
    word.add_paragraph("A couchette is paid for.", style="List Bullet")
    table = word.add_table(rows=2, cols=2)
    for cell, text in zip(table._cells, ("Hours", "Class", "6", "first"), strict=True):
        cell.text = text
    word.add_paragraph("After the table.")
    document = parse_bytes(tmp_path, "travel.docx", saved(word))
    assert (document.title, document.source_type) == ("Travel", SourceType.DOCX)
    assert [(block.kind, block.text) for block in document.blocks] == [
        (BlockKind.HEADING, "Trains"),
        (BlockKind.PARAGRAPH, "Second class below five hours."),
        (BlockKind.HEADING, "Night trains"),
        (BlockKind.LIST_ITEM, "A couchette is paid for."),
        (BlockKind.TABLE_ROW, "Hours | Class"),
        (BlockKind.TABLE_ROW, "6 | first"),
        (BlockKind.PARAGRAPH, "After the table."),
    ]
    assert [block.level for block in document.blocks if block.kind is BlockKind.HEADING] == [1, 2]


def test_slides_keep_titles_pages_tables_and_notes(tmp_path: Path) -> None:
    deck = Presentation()
    first = deck.slides.add_slide(deck.slide_layouts[1])
    first.shapes.title.text = "Cranes"
    first.placeholders[1].text = "Forty tonnes\nat most"
    first.notes_slide.notes_text_frame.text = "Say that the licence ends."
    second = deck.slides.add_slide(deck.slide_layouts[5])
    second.shapes.title.text = "Loads"
    table = second.shapes.add_table(2, 2, Inches(1), Inches(2), Inches(4), Inches(1)).table
    for number, text in enumerate(("Crane", "Load", "A", "40 t")):
        table.cell(number // 2, number % 2).text = text
    document = parse_bytes(tmp_path, "cranes.pptx", saved(deck))
    assert document.source_type is SourceType.PPTX
    assert [(block.kind, block.page) for block in document.blocks if block.kind is BlockKind.HEADING] == [
        (BlockKind.HEADING, 1),
        (BlockKind.HEADING, 2),
    ]
    assert of_kind(document, BlockKind.NOTES) == ["Say that the licence ends."]
    assert of_kind(document, BlockKind.TABLE_ROW) == ["Crane | Load", "A | 40 t"]
    assert next(block.page for block in document.blocks if block.kind is BlockKind.NOTES) == 1
    assert any("Forty tonnes" in block.text for block in document.blocks)


def test_what_word_deleted_is_gone_and_what_it_inserted_is_there(tmp_path: Path) -> None:
    word = Word()
    word.add_paragraph("PLACEHOLDER")
    body = saved(word)
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        xml = archive.read("word/document.xml")
    changed = xml.replace(
        b"<w:r><w:t>PLACEHOLDER</w:t></w:r>",
        b"<w:r><w:t xml:space='preserve'>The pump is </w:t></w:r>"
        b"<w:del w:id='1' w:author='a'><w:r><w:delText>red</w:delText></w:r></w:del>"
        b"<w:ins w:id='2' w:author='a'><w:r><w:t>blue</w:t></w:r></w:ins>",
    )
    assert changed != xml
    document = parse_bytes(tmp_path, "tracked.docx", replaced(body, "word/document.xml", changed))
    assert [block.text for block in document.blocks] == ["The pump is blue"]


@pytest.mark.parametrize("name", ["bomb.docx", "bomb.pptx"])
def test_a_zip_bomb_is_refused_before_it_goes_off(tmp_path: Path, name: str) -> None:
    part = "word/document.xml" if name.endswith("docx") else "ppt/slides/slide1.xml"
    made: object = Word() if name.endswith("docx") else Presentation()
    out = io.BytesIO(saved(made))
    with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as archive, archive.open(f"{part}2", "w") as target:
        for _ in range(700):
            target.write(b" " * 1024 * 1024)
    assert rejection(tmp_path, name, out.getvalue()).reason == "zip-bomb"


def test_an_entity_bomb_is_refused(tmp_path: Path) -> None:
    word = Word()
    word.add_paragraph("x")
    bomb = (
        b'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
        b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:r><w:t>'
        b"&b;</w:t></w:r></w:p></w:body></w:document>"
    )
    assert rejection(tmp_path, "entities.docx", replaced(saved(word), "word/document.xml", bomb)).reason == "zip-bomb"


@pytest.mark.parametrize("name", ["cut.docx", "cut.pptx"])
def test_a_file_that_breaks_off_is_broken(tmp_path: Path, name: str) -> None:
    whole = saved(Word() if name.endswith("docx") else Presentation())
    assert rejection(tmp_path, name, whole[: len(whole) // 2]).reason == "broken"


def test_a_file_of_another_kind_is_known_by_its_content(tmp_path: Path) -> None:
    word = Word()
    word.add_paragraph("It is Word, whatever its name says.")
    document = parse_bytes(tmp_path, "slides.pptx", saved(word))
    assert document.source_type is SourceType.DOCX


def test_a_file_larger_than_allowed_is_not_opened(tmp_path: Path) -> None:
    assert rejection(tmp_path, "a.docx", saved(Word()), Limits(max_file_bytes=10)).reason == "too-large"


def damaged_word(part: str, content: bytes) -> bytes:
    """A Word file with a footnote, one of its parts replaced."""
    word = Word()
    word.core_properties.title = "Valves of the north plant"
    word.add_heading("Valves", 1)
    word.add_paragraph("Checked every week.")
    return replaced(saved(word), part, content)


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("word/styles.xml", b"<w:x xmlns:w='u'/>"),
        ("docProps/core.xml", b"<x/>"),
        (
            "docProps/core.xml",
            b'<cp:coreProperties xmlns:cp="http://schemas.openxmlformats.org/package/2006/metadata/core-properties" '
            b'xmlns:dcterms="http://purl.org/dc/terms/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
            b'<dcterms:modified xsi:type="dcterms:W3CDTF">0001-01-01T00:00:00+14:00</dcterms:modified>'
            b"</cp:coreProperties>",
        ),
    ],
)
def test_a_damaged_part_costs_what_it_says_and_not_the_text(tmp_path: Path, part: str, content: bytes) -> None:
    document = parse_bytes(tmp_path, "a.docx", damaged_word(part, content))
    assert [block.text for block in document.blocks] == ["Valves", "Checked every week."]


@pytest.mark.parametrize("level", ["²", "٣", "-1", "99", "x", ""])
def test_a_level_that_is_none_makes_no_heading(tmp_path: Path, level: str) -> None:
    xml = (
        '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:pPr>'
        f'<w:outlineLvl w:val="{level}"/></w:pPr><w:r><w:t>Checked</w:t><w:sym w:char="{"f" * 40}"/>'
        '<w:footnoteReference w:id="1"/></w:r></w:p></w:body></w:document>'
    )
    document = parse_bytes(tmp_path, "a.docx", damaged_word("word/document.xml", xml.encode()))
    assert [(block.kind, block.text) for block in document.blocks] == [(BlockKind.PARAGRAPH, "Checked")]


def test_damaged_footnotes_are_left_out_and_named(tmp_path: Path) -> None:
    nested = (FILES / "nested.docx").read_bytes()
    rels = (
        b'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="f" '
        b'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes" Target="footnotes.xml"/>'
        b"</Relationships>"
    )
    note = b'<w:r><w:footnoteReference w:id="1"/></w:r></w:p>'
    changed = {
        "word/_rels/document.xml.rels": lambda _: rels,
        "word/footnotes.xml": lambda _: b"<w:footnotes",
        "word/document.xml": lambda xml: xml.replace(b"</w:p>", note),
    }
    whole = parse_bytes(tmp_path, "whole.docx", nested)
    document = parse_bytes(tmp_path, "a.docx", replace_entries(nested, changed))
    assert document.blocks == whole.blocks
    assert document.warnings == ("the footnotes can't be read: left out",)
