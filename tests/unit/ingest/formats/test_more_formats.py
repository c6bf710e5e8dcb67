"""Sheets, mails, books, OpenDocument and RTF: what is read, what is named as left out, and what is refused."""

from __future__ import annotations

import io
import subprocess
import sys
from datetime import UTC, datetime
from email.message import EmailMessage
from importlib.metadata import EntryPoint
from pathlib import Path

import odfdo
import openpyxl
import pytest

from app.ingest.formats import Limits, table
from app.ingest.formats.number_format import show
from app.passage import Block, BlockKind, ParsedDocument, SourceType
from tests.unit.ingest.formats.build import of_kind, parse_bytes, rejection, replace_entries, zip_of

TYPES = b'<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'
CONTAINER = (
    b'<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    b'<rootfile full-path="O/book.opf"/></rootfiles></container>'
)


def workbook() -> tuple[openpyxl.Workbook, bytes]:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Sales"
    sheet["B2"] = "Sales of 2024"
    for column, text in zip("BCDE", ("Region", "Share", "Day", "Amount"), strict=True):
        sheet[f"{column}4"] = text
    sheet["B5"], sheet["C5"], sheet["D5"], sheet["E5"] = "North", 0.125, datetime(2025, 3, 1), 1234.5
    sheet["C6"], sheet["E6"] = 0.2, '=WEBSERVICE("http://127.0.0.1:9/x")'
    sheet["C5"].number_format, sheet["D5"].number_format, sheet["E5"].number_format = (
        "0.0 %",
        "dd.mm.yyyy",
        '#,##0.00 "€"',
    )
    sheet.merge_cells("B5:B6")
    sheet["B10"], sheet["C10"] = "Shop", "Rent"
    sheet["B11"], sheet["C11"] = "Linz", 40
    hidden = book.create_sheet("Secret")
    hidden["A1"], hidden.sheet_state = "nobody sees this", "hidden"
    return book, saved(book)


def saved(book: openpyxl.Workbook) -> bytes:
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def book(chapters: int, *, listed: int = 0, more: dict[str, bytes] | None = None) -> bytes:
    total = max(chapters, listed)
    items = "".join(f'<item id="c{i}" href="c%20{i}.xhtml"/>' for i in range(total))
    spine = "".join(f'<itemref idref="c{i}"/>' for i in range(total))
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
        f"<dc:title>The river</dc:title></metadata><manifest>{items}</manifest><spine>{spine}</spine></package>"
    )
    page = "<!DOCTYPE html><html><body><h1>Chapter {0}</h1><p>Words of {0}.</p></body></html>"
    return zip_of(
        {"mimetype": b"application/epub+zip", "META-INF/container.xml": CONTAINER, "O/book.opf": package.encode()}
        | {f"O/c {i}.xhtml": page.format(i).encode() for i in range(chapters)}
        | (more or {})
    )


def opendocument(kind: str) -> bytes:
    document = odfdo.Document(kind)
    document.body.clear()
    if kind == "text":
        document.body.append(odfdo.Header(1, "Parking"))
        document.body.append(odfdo.Paragraph("Visitors park in row C."))
    if kind == "presentation":
        for number in (1, 2):
            page = odfdo.DrawPage(f"p{number}", name=f"page{number}")
            page.append(
                odfdo.Frame.text_frame(f"Words of slide {number}", size=("7cm", "5cm"), position=("1cm", "1cm"))
            )
            document.body.append(page)
    else:
        rows = odfdo.Table("Fees")
        rows.set_values([["Garage", "Share"], ["North", ""]])
        rows.set_cell((1, 1), odfdo.Cell(0.125, cell_type="percentage", text="12 %"))
        document.body.append(rows)
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def test_sheets_are_read_as_excel_shows_them(tmp_path: Path) -> None:
    document = parse_bytes(tmp_path, "sales.xlsx", workbook()[1])
    assert [(block.kind, block.text, block.page) for block in document.blocks] == [
        (BlockKind.HEADING, "Sales", 1),
        (BlockKind.PARAGRAPH, "Sales of 2024", 1),
        (BlockKind.TABLE_ROW, "Region | Share | Day | Amount", 1),
        (BlockKind.TABLE_ROW, "North | 12.5 % | 01.03.2025 | 1,234.50 €", 1),
        (BlockKind.TABLE_ROW, "North | 0.2", 1),
        (BlockKind.HEADING, "Sales", 1),
        (BlockKind.TABLE_ROW, "Shop | Rent", 1),
        (BlockKind.TABLE_ROW, "Linz | 40", 1),
    ]
    assert [warning.partition(":")[0] for warning in document.warnings] == [
        "1 formulas without a stored result",
        "1 hidden sheets left out",
    ]


@pytest.mark.parametrize(
    ("value", "pattern", "shown"),
    [
        (0.125, "0.0%", "12.5%"),
        (0.5, "0%", "50%"),
        (1234567.891, "#,##0.00", "1,234,567.89"),
        (-5, "0.00;(0.00)", "(5.00)"),
        (0, '0;-0;"-"', "-"),
        (7, "00000", "00007"),
        (12.50, "0.##", "12.5"),
        (3, "0.##", "3"),
        (1500000, '0.0,,"M"', "1.5M"),
        (9.99, "[$€-407]#,##0.00", "€9.99"),
        (1e20, "General", "1e+20"),
        (0.1 + 0.2, "General", "0.3"),
        (True, "General", "TRUE"),
        (datetime(2025, 3, 1), "mm-dd-yy", "2025-03-01"),
        (datetime(2025, 3, 1, 14, 5), "yyyy-mm-dd hh:mm", "2025-03-01 14:05"),
        (datetime(2025, 3, 1), "d. mmmm yyyy", "1. March 2025"),
        (5, "0" * 5000, "5"),
    ],
)
def test_number_formats(value: object, pattern: str, shown: str) -> None:
    assert show(value, pattern) == shown


def test_of_a_huge_workbook_or_csv_what_fits_is_read_and_the_rest_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = openpyxl.Workbook(write_only=True)
    for number in range(1000):
        many.create_sheet(f"S{number}").append(["a", number])
    document = parse_bytes(tmp_path, "a.xlsx", saved(many))
    assert document.warnings == ("500 of 1,000 sheets left out: split the workbook",)
    assert len(of_kind(document, BlockKind.TABLE_ROW)) == 500
    rows = b"id;name\n" + b"".join(b"%d;part %d\n" % (number, number) for number in range(300_000))
    document = parse_bytes(tmp_path, "a.csv", rows)
    assert len(document.blocks) == 200_000
    assert document.warnings == ("100,001 rows left out: more than is read of one file; split it",)


@pytest.mark.parametrize(
    ("name", "data", "row"),
    [
        ("a.csv", 'id;name\n1;"Müller; Söhne"\n'.encode("cp1252"), "1 | Müller; Söhne"),
        ("a.csv", b'id,text\n1,"two\nlines, ""quoted"""\n', '1 | two lines, "quoted"'),
        ("a.tsv", "id\tname\n1\tÄ, B\n".encode("utf-16"), "1 | Ä, B"),
    ],
)
def test_csv_in_any_encoding_and_delimiter(tmp_path: Path, name: str, data: bytes, row: str) -> None:
    assert of_kind(parse_bytes(tmp_path, name, data), BlockKind.TABLE_ROW)[1] == row


def mail(text: str, *, html: str | None = None) -> EmailMessage:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = (
        "Lieferung für Müller",
        "Helga <h@example.org>",
        "o@example.org",
    )
    message["Date"] = "Mon, 03 Mar 2025 10:00:00 +0100"
    message.set_content(text)
    if html:
        message.add_alternative(html, subtype="html")
    return message


def test_a_mail_with_quotes_and_attachments(tmp_path: Path) -> None:
    text = "The pump comes.\n> When does it come?\nOn Monday.\n\n-----Original Message-----\nWhere is it?\n"
    message = mail(text, html="<p>The pump comes.</p>")
    message.add_attachment("Price: 480 euro", filename="offer.txt")
    message.add_attachment(workbook()[1], maintype="application", subtype="octet-stream", filename="sales.xlsx")
    message.add_attachment(b"\x89PNG\r\n\x1a\n", maintype="image", subtype="png", filename="site.png")
    document = parse_bytes(tmp_path, "a.eml", message.as_bytes())
    assert (document.title, document.source_type) == ("Lieferung für Müller", SourceType.MAIL)
    assert document.timestamp is not None
    assert document.timestamp.astimezone(UTC) == datetime(2025, 3, 3, 9, tzinfo=UTC)
    paragraphs = of_kind(document, BlockKind.PARAGRAPH)
    assert paragraphs[:2] == ["From: Helga <h@example.org>", "To: o@example.org"]
    assert paragraphs[3:8] == [
        "The pump comes.",
        "> When does it come?",
        "On Monday.",
        "Where is it?",
        "Price: 480 euro",
    ]
    headings = of_kind(document, BlockKind.HEADING)
    assert headings == ["Earlier message", "Attachment: offer.txt", "Attachment: sales.xlsx", "Sales", "Sales"]
    assert any(warning.startswith("attachment 'site.png' left out: a PNG") for warning in document.warnings)
    assert any(warning.startswith("attachment 'sales.xlsx': 1 hidden") for warning in document.warnings)


def test_a_mail_that_contains_itself_ends(tmp_path: Path) -> None:
    message = mail("innermost")
    for number in range(20):
        outer = mail(f"level {number}")
        outer.add_attachment(message)
        message = outer
    document = parse_bytes(tmp_path, "a.eml", message.as_bytes())
    assert [block.text for block in document.blocks if block.text.startswith("level")] == [
        "level 19",
        "level 18",
        "level 17",
    ]
    assert "left out" in document.warnings[0]


@pytest.mark.parametrize("kind", ["text", "spreadsheet", "presentation"])
def test_opendocument(tmp_path: Path, kind: str) -> None:
    suffix = {"text": ".odt", "spreadsheet": ".ods", "presentation": ".odp"}[kind]
    document = parse_bytes(tmp_path, f"a{suffix}", opendocument(kind))
    rows = of_kind(document, BlockKind.TABLE_ROW)
    if kind == "text":
        assert (document.blocks[0], rows) == (
            Block(BlockKind.HEADING, "Parking", level=1),
            ["Garage | Share", "North | 12 %"],
        )
    elif kind == "spreadsheet":
        assert [block.text for block in document.blocks] == ["Fees", "Garage | Share", "North | 12 %"]
    else:
        assert [(block.text, block.page) for block in document.blocks] == [
            ("Words of slide 1", 1),
            ("Words of slide 2", 2),
        ]


def test_a_book_of_ten_thousand_chapters_and_one_with_chapters_missing(tmp_path: Path) -> None:
    document = parse_bytes(tmp_path, "a.epub", book(10_000))
    assert (document.title, len(document.blocks), document.blocks[-1].text) == ("The river", 20_000, "Words of 9999.")
    document = parse_bytes(tmp_path, "a.epub", book(1, listed=4, more={"O/cover.jpg": b"x"}))
    assert document.warnings == (
        "3 chapters that the book names are not in it, or are no HTML",
        "1 picture not read",
    )


def test_rtf(tmp_path: Path) -> None:
    data = (
        rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Arial;}}{\info{\title Memo of the yard}}\fs28\b Parking\b0\fs22\par "
        rb"Visitors pay 4 \'80.\par\trowd\cellx3000\cellx6000\intbl Garage\cell Fee\cell\row\pard "
        rb"{\pict\pngblip " + b"89504e47" * 200 + rb"}Gr\u252?\'df Gott\par}"
    )
    document = parse_bytes(tmp_path, "a.rtf", data)
    assert (document.title, document.warnings) == ("Memo of the yard", ("1 picture not read",))
    assert [(block.kind, block.text) for block in document.blocks] == [
        (BlockKind.HEADING, "Parking"),
        (BlockKind.PARAGRAPH, "Visitors pay 4 €."),
        (BlockKind.TABLE_ROW, "Garage | Fee"),
        (BlockKind.PARAGRAPH, "Grüß Gott"),
    ]


def entity(xml: bytes) -> bytes:
    return b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + xml.partition(b"?>")[2]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.xlsx", replace_entries(workbook()[1], {"xl/workbook.xml": entity}), "zip-bomb"),
        (
            "a.xlsx",
            replace_entries(workbook()[1], {"xl/worksheets/sheet1.xml": lambda _: b" " * 400_000_000}),
            "zip-bomb",
        ),
        ("a.xlsx", replace_entries(workbook()[1], {"xl/workbook.xml": lambda xml: xml[:200]}), "broken"),
        ("a.xlsx", b"no workbook", "broken"),
        ("a.xlsx", replace_entries(workbook()[1], {"[Content_Types].xml": lambda _: TYPES}), "broken"),
        ("a.epub", book(1, more={"META-INF/container.xml": b"<container/>"}), "broken"),
        ("a.xlsx", saved(openpyxl.Workbook()), "empty"),
        ("a.ods", replace_entries(opendocument("spreadsheet"), {"content.xml": entity}), "zip-bomb"),
        (
            "a.odt",
            replace_entries(opendocument("text"), {"META-INF/manifest.xml": lambda xml: xml + b"<encryption-data/>"}),
            "encrypted",
        ),
        ("a.odt", replace_entries(opendocument("text"), {"content.xml": lambda xml: xml[:300]}), "broken"),
        ("a.epub", book(1, more={"META-INF/container.xml": entity(CONTAINER)}), "zip-bomb"),
        ("a.epub", book(0), "empty"),
        ("a.epub", zip_of({"mimetype": b"application/epub+zip"}), "broken"),
        ("a.eml", b"Not a mail at all, only words.\n", "broken"),
        ("a.msg", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "__properties_version1.0".encode("utf-16-le"), "broken"),
        ("a.msg", b"no mail", "broken"),
        ("a.rtf", rb"{\rtf1 }", "empty"),
        ("a.csv", bytes(range(256)) * 10, "unsupported-type"),
        ("a.csv", b"\n\n", "empty"),
    ],
)
def test_what_can_not_be_read_says_why(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    assert rejection(tmp_path, name, data).reason == reason


def read_drawing(data: bytes, name: str, limits: Limits) -> ParsedDocument:
    return ParsedDocument(name, (Block(BlockKind.PARAGRAPH, data[4:].decode()),), SourceType.TEXT)


DRAWING = table.Format("drawings", f"{__name__}:read_drawing", (".dwg",), magic=(b"AC10",))


def test_a_package_adds_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = EntryPoint("dwg", f"{__name__}:DRAWING", table.GROUP)
    monkeypatch.setattr(table, "entry_points", lambda group: [added] if group == table.GROUP else [])
    table.formats.cache_clear()
    try:
        assert parse_bytes(tmp_path, "plan.dwg", b"AC10A wall.").blocks[0].text == "A wall."
        assert "drawings" in rejection(tmp_path, "a.zip", zip_of({"a": b"b"})).detail
    finally:
        table.formats.cache_clear()


def test_without_the_extra_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith(("openpyxl", "app.ingest.formats.xlsx"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    refused = rejection(tmp_path, "a.xlsx", workbook_once)
    assert refused.reason == "unsupported-type"
    assert "braid-rag[formats]" in refused.detail


workbook_once = workbook()[1]


def test_the_service_imports_no_reader_and_a_reader_no_torch(tmp_path: Path) -> None:
    (tmp_path / "a.ods").write_bytes(opendocument("spreadsheet"))
    program = (
        "import sys; from pathlib import Path; import app.ingest.formats; "
        "assert not {'docling', 'openpyxl', 'striprtf', 'oxmsg', 'odfdo'} & set(sys.modules), 'imported too early'; "
        "app.ingest.formats.parse_file(Path(sys.argv[1])); "
        "assert 'torch' not in sys.modules, 'torch'; "
        "peak = Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]; "
        "assert int(peak) < 400 * 1024, peak"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "a.ods"], check=True)
