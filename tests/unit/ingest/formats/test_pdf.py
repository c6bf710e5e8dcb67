from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pypdfium2 as pdfium
import pytest
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import PageBreak, Paragraph, Spacer, Table

from app.passage import BlockKind, SourceType

from .build import (
    STYLES,
    WORDS,
    block,
    body,
    canvas_pdf,
    flow_pdf,
    heading,
    of_kind,
    parse_bytes,
    picture,
    raw_pdf,
    rejection,
)


def test_headings_paragraphs_and_pages(tmp_path: Path) -> None:
    story = [
        Paragraph("Floods of the Delta", STYLES["Title"]),
        heading("Water and silt", 1),
        body(WORDS),
        heading("Measuring the flow", 2),
        body("Nine stations were built. " + WORDS),
        PageBreak(),
        heading("What the dam changed", 1),
        body("After the dam. " + WORDS),
    ]
    document = parse_bytes(tmp_path, "delta.pdf", flow_pdf(story))
    assert document.source_type is SourceType.PDF
    assert document.title == "Floods of the Delta"
    headings = [(b.text, b.page) for b in document.blocks if b.kind is BlockKind.HEADING]
    assert headings == [
        ("Floods of the Delta", 1),
        ("Water and silt", 1),
        ("Measuring the flow", 1),
        ("What the dam changed", 2),
    ]
    levels = {b.text: b.level for b in document.blocks if b.kind is BlockKind.HEADING}
    assert levels["Water and silt"] == levels["What the dam changed"] < levels["Measuring the flow"]
    assert of_kind(document, BlockKind.PARAGRAPH) == [
        WORDS.strip(),
        "Nine stations were built. " + WORDS.strip(),
        "After the dam. " + WORDS.strip(),
    ]
    assert block(document, "After the dam").page == 2


def test_metadata(tmp_path: Path) -> None:
    document = parse_bytes(tmp_path, "a.pdf", flow_pdf([body(WORDS)], title="The Yearly Report"))
    assert document.title == "The Yearly Report"
    assert document.timestamp == datetime(2000, 1, 1, tzinfo=UTC)  # what reportlab writes for `invariant`
    unnamed = parse_bytes(tmp_path, "river_report-2024.pdf", flow_pdf([body(WORDS)], title="Microsoft Word - x.doc"))
    assert unnamed.title == "river report 2024"


@pytest.mark.parametrize("columns", [2, 3])
def test_columns_are_read_one_after_the_other(tmp_path: Path, columns: int) -> None:
    paragraphs = [f"Paragraph {number} begins here. {WORDS * 2}" for number in range(1, 13)]
    document = parse_bytes(tmp_path, "columns.pdf", flow_pdf([body(text) for text in paragraphs], columns=columns))
    assert [" ".join(text.split()) for text in paragraphs] == of_kind(document, BlockKind.PARAGRAPH)


def test_a_title_over_two_columns_comes_first(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.setFont("Helvetica-Bold", 20)
        canvas.drawCentredString(297, 780, "One Title Over Both of the Columns")
        canvas.setFont("Helvetica", 10)
        for row in range(30):
            # written row by row, as some producers do: the order of the file is not the order of reading
            canvas.drawString(60, 740 - 12 * row, f"left column has its line {row:02d} here so it is")
            canvas.drawString(310, 740 - 12 * row, f"right column has its line {row:02d} here so is it")

    document = parse_bytes(tmp_path, "two.pdf", canvas_pdf(draw))
    text = " ".join(b.text for b in document.blocks)
    assert document.blocks[0].kind is BlockKind.HEADING
    assert (
        text.index("One Title") < text.index("left column has its line 29") < text.index("right column has its line 00")
    )


def test_running_heads_and_page_numbers_are_left_out(tmp_path: Path) -> None:
    story = [item for n in range(5) for item in (body(f"Chapter {n} text. {WORDS}"), PageBreak())]
    document = parse_bytes(tmp_path, "book.pdf", flow_pdf(story, running_head="Annals of the River Board, volume 12"))
    text = " ".join(b.text for b in document.blocks)
    assert "Annals" not in text
    assert "of 9" not in text
    assert [b.page for b in document.blocks] == [1, 2, 3, 4, 5]


def test_words_cut_at_the_end_of_a_line_are_joined(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.setFont("Helvetica", 11)
        lines = [
            "The pre-trained model gives a good repre-",
            "sentation of the text, which a pre-",
            "trained reader can use for the ques-",
            "tion at hand and for other questions.",
        ]
        for number, line in enumerate(lines):
            canvas.drawString(72, 700 - 14 * number, line)

    document = parse_bytes(tmp_path, "hyphens.pdf", canvas_pdf(draw))
    assert of_kind(document, BlockKind.PARAGRAPH) == [
        "The pre-trained model gives a good representation of the text, which a pre-trained reader can use for the "
        "question at hand and for other questions."
    ]


def test_a_sentence_goes_on_over_the_page_break(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.setFont("Helvetica", 11)
        canvas.drawString(72, 114, "This is the last paragraph of the first page, whose sentence has not")
        canvas.drawString(72, 100, "yet come to its end when the page is full, so that the reader turns")
        canvas.showPage()
        canvas.setFont("Helvetica", 11)
        canvas.drawString(72, 780, "the page and reads on until the full stop. Then another one begins and")
        canvas.drawString(72, 766, "it is done.")

    document = parse_bytes(tmp_path, "over.pdf", canvas_pdf(draw))
    assert len(document.blocks) == 1
    assert "so that the reader turns the page and reads on" in document.blocks[0].text
    assert document.blocks[0].page == 1


def test_tables_become_rows(tmp_path: Path) -> None:
    cells = [["Station", "Flow", "Year"], ["Upper dam", "120 m3", "2019"], ["Lower ford", "95 m3", "2020"]]
    story = [body(WORDS), Spacer(1, 12), Table(cells, colWidths=[140, 100, 80]), Spacer(1, 12), body(WORDS)]
    document = parse_bytes(tmp_path, "table.pdf", flow_pdf(story))
    assert of_kind(document, BlockKind.TABLE_ROW) == [" | ".join(row) for row in cells]
    assert [b.kind for b in document.blocks][::4] == [BlockKind.PARAGRAPH, BlockKind.PARAGRAPH]


def test_lists_and_code(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.setFont("Helvetica", 11)
        canvas.drawString(72, 760, "Do this before you open the gate:")
        canvas.drawString(90, 745, "\u2022 look at the gauge upstream")
        canvas.drawString(90, 731, "\u2022 call the warden")
        canvas.setFont("Courier", 10)
        canvas.drawString(72, 700, "def open(gate):")
        canvas.drawString(96, 688, "return gate.lift(1)")
        canvas.setFont("Helvetica", 11)
        for number in range(6):
            canvas.drawString(72, 660 - 14 * number, "And a long paragraph of plain text follows below it all.")

    document = parse_bytes(tmp_path, "list.pdf", canvas_pdf(draw))
    assert of_kind(document, BlockKind.LIST_ITEM) == ["• look at the gauge upstream", "• call the warden"]
    assert of_kind(document, BlockKind.CODE) == ["def open(gate):\n    return gate.lift(1)"]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_page_turned_for_the_viewer(tmp_path: Path, rotation: int) -> None:
    straight = flow_pdf([heading("Turned around", 1), *(body(f"Number {n}. {WORDS}") for n in range(4))])
    document = pdfium.PdfDocument(straight)
    document[0].set_rotation(rotation)  # as scanners and viewers store it: the text is not upright any more
    turned = io.BytesIO()
    document.save(turned)
    document.close()
    assert parse_bytes(tmp_path, "turned.pdf", turned.getvalue()).blocks == (
        parse_bytes(tmp_path, "straight.pdf", straight).blocks
    )


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_text_turned_on_the_page(tmp_path: Path, angle: int) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.translate(300, 420)
        canvas.rotate(angle)
        canvas.setFont("Helvetica", 11)
        for number in range(8):
            canvas.drawString(-200, 100 - 14 * number, f"This is the line number {number} of a text that lies down.")

    document = parse_bytes(tmp_path, "lying.pdf", canvas_pdf(draw))
    text = " ".join(b.text for b in document.blocks)
    assert text.startswith("This is the line number 0 of a text that lies down. This is the line number 1")


def test_stamps_beside_the_text_are_left_out(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.setFont("Helvetica", 11)
        for number in range(20):
            canvas.drawString(90, 760 - 14 * number, "This is a line of the text that runs straight on, as it should.")
        canvas.translate(40, 300)
        canvas.rotate(90)
        canvas.drawString(0, 0, "arXiv:2101.00001v1 [cs.CL]")

    document = parse_bytes(tmp_path, "stamp.pdf", canvas_pdf(draw))
    assert len(document.blocks) == 1
    assert "arXiv" not in document.blocks[0].text


def test_bookmarks_name_headings_of_the_bodys_own_type(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.setFont("Helvetica", 11)
        canvas.drawString(72, 760, "Where the silt comes from")
        canvas.bookmarkPage("silt")
        canvas.addOutlineEntry("Where the silt comes from", "silt", level=0)
        for number in range(5):
            canvas.drawString(72, 740 - 14 * number, "The silt comes from the hills, and it is carried by the river.")

    document = parse_bytes(tmp_path, "marks.pdf", canvas_pdf(draw))
    heading, _ = document.blocks
    assert (heading.kind, heading.text) == (BlockKind.HEADING, "Where the silt comes from")


def test_a_user_password_is_refused_and_an_owner_password_is_not(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.drawString(72, 700, "Nobody may copy this, but anybody may read it.")

    locked = canvas_pdf(draw, password=StandardEncryption("secret", ownerPassword="owner"))
    assert rejection(tmp_path, "locked.pdf", locked).reason == "encrypted"
    protected = canvas_pdf(draw, password=StandardEncryption("", ownerPassword="owner", canCopy=0))
    assert parse_bytes(tmp_path, "protected.pdf", protected).blocks[0].text.startswith("Nobody may copy this")


def test_scans(tmp_path: Path) -> None:
    def scan(canvas: Canvas) -> None:
        canvas.drawImage(picture(), 0, 0, 595, 842)

    def half(canvas: Canvas) -> None:
        scan(canvas)
        canvas.showPage()
        canvas.drawString(72, 700, "The second page has text of its own.")

    refused = rejection(tmp_path, "scan.pdf", canvas_pdf(scan))
    assert refused.reason == "no-text"
    assert "OCR" in refused.detail
    document = parse_bytes(tmp_path, "half.pdf", canvas_pdf(half))
    assert document.warnings == ("no text on page 1 of 2: scanned or drawn",)
    assert document.blocks[0].page == 2


def test_the_text_that_ocr_put_behind_a_picture_is_read(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.drawImage(picture(), 0, 0, 595, 842)
        text = canvas.beginText(72, 700)
        text.setTextRenderMode(3)
        text.textLine("Recognised text under the picture")
        canvas.drawText(text)

    document = parse_bytes(tmp_path, "ocr.pdf", canvas_pdf(draw))
    assert document.blocks[0].text == "Recognised text under the picture"
    assert not document.warnings


def test_damaged_files(tmp_path: Path) -> None:
    whole = flow_pdf([body(WORDS)])
    assert rejection(tmp_path, "head.pdf", whole[:100]).reason == "broken"
    assert rejection(tmp_path, "only.pdf", b"%PDF-1.7\n" + b"garbage " * 200).reason == "broken"
    assert rejection(tmp_path, "not.pdf", b"This is no PDF at all, whatever its name says.").reason == "broken"
    assert rejection(tmp_path, "nothing.pdf", b"").reason == "empty"
    # the table of objects at the end is lost, but the objects are there: PDFium finds them
    assert parse_bytes(tmp_path, "tail.pdf", whole[: whole.index(b"startxref")]).blocks[0].text == WORDS.strip()


def test_text_outside_the_page_is_not_read(tmp_path: Path) -> None:
    content = b"BT /F1 12 Tf 72 700 Td (On the page) Tj 0 -2000 Td (Below the page) Tj ET"
    assert [b.text for b in parse_bytes(tmp_path, "out.pdf", raw_pdf(content)).blocks] == ["On the page"]


def test_ligatures_and_controls_are_normalised(tmp_path: Path) -> None:
    content = b"BT /F1 12 Tf 72 700 Td (ef\\256cient and \\257oating) Tj ET"  # MacRoman-like codes of fi and fl
    data = raw_pdf(content).replace(b"/BaseFont/Helvetica>>", b"/BaseFont/Helvetica/Encoding/PDFDocEncoding>>")
    text = parse_bytes(tmp_path, "fi.pdf", data).blocks[0].text
    assert text.isprintable()
    assert "cient" in text
