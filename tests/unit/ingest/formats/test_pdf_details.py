"""Kinds of text that PDFs often lose: fields, cells, digits, hyphens; and text that nobody sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from reportlab.lib import colors
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Paragraph, Spacer, Table

from app.passage import BlockKind

from .build import STYLES, WORDS, body, canvas_pdf, flow_pdf, of_kind, parse_bytes

Draw = Callable[[Canvas], None]


def lines(canvas: Canvas, x: float, y: float, *texts: str, step: float = 14, size: float = 11) -> None:
    canvas.setFont("Helvetica", size)
    for number, text in enumerate(texts):
        canvas.drawString(x, y - number * step, text)


def whole(folder: Path, draw: Draw) -> str:
    return " ".join(block.text for block in parse_bytes(folder, "drawn.pdf", canvas_pdf(draw)).blocks)


def test_values_of_fields_stand_beside_their_labels(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        lines(canvas, 72, 700, "Name:", "Colour:", "Agreed:", step=40)
        canvas.acroForm.textfield(name="name", value="Leonhard Riedl", x=150, y=692, width=200, height=24)
        canvas.acroForm.choice(
            name="colour", value="Red", options=[("Red", "r"), ("Blue", "b")], x=150, y=652, width=100, height=24
        )
        canvas.acroForm.checkbox(name="agreed", checked=True, x=150, y=612, size=20)

    text = whole(tmp_path, draw)
    assert text.index("Name:") < text.index("Leonhard Riedl") < text.index("Colour:") < text.index("Agreed:")
    assert "Agreed: [x]" in text.replace(" | ", " ")


def test_comments_are_notes(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        lines(canvas, 72, 700, "The draft names a fee.")
        canvas.textAnnotation("Legal wants a cap of 900 euro", Rect=[300, 690, 320, 710])

    document = parse_bytes(tmp_path, "noted.pdf", canvas_pdf(draw))
    assert of_kind(document, BlockKind.NOTES) == ["Legal wants a cap of 900 euro"]


def test_a_row_of_a_ruled_table_is_one_row(tmp_path: Path) -> None:
    cells = [
        ["Kind", "Who", "How much"],
        [
            Paragraph(text, STYLES["BodyText"])
            for text in ("Night work between ten and six", "All", "25 percent of pay")
        ],
        [Paragraph(text, STYLES["BodyText"]) for text in ("Travel", "Staff who visit customers often", "300 euro")],
    ]
    table = Table(cells, colWidths=[80, 90, 80], style=[("GRID", (0, 0), (-1, -1), 1, colors.black)])
    document = parse_bytes(tmp_path, "wrapped.pdf", flow_pdf([body(WORDS), Spacer(1, 12), table]))
    assert of_kind(document, BlockKind.TABLE_ROW) == [
        "Kind | Who | How much",
        "Night work between ten and six | All | 25 percent of pay",
        "Travel | Staff who visit customers often | 300 euro",
    ]


def test_a_cell_over_rows_stands_in_each_of_them(tmp_path: Path) -> None:
    cells = [["Region", "Shop", "2023"], ["East", "Vienna", "120"], ["", "Graz", ""], ["West", "Innsbruck", "64"]]
    style = [("GRID", (0, 0), (-1, -1), 1, colors.black), ("SPAN", (0, 1), (0, 2))]
    document = parse_bytes(tmp_path, "spans.pdf", flow_pdf([Table(cells, style=style)]))
    assert of_kind(document, BlockKind.TABLE_ROW) == [
        "Region | Shop | 2023",
        "East | Vienna | 120",
        "East | Graz | ",
        "West | Innsbruck | 64",
    ]


def test_text_beside_a_ruled_table_is_kept(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        table = Table([["Pump", "12 bar"], ["Valve", "9 bar"]], style=[("GRID", (0, 0), (-1, -1), 1, colors.black)])
        table.wrapOn(canvas, 200, 200)
        table.drawOn(canvas, 72, 680)
        lines(canvas, 260, 702, "The picture shows", "both of them", step=18)

    text = whole(tmp_path, draw)
    assert all(part in text for part in ("Pump | 12 bar", "Valve | 9 bar", "The picture shows", "both of them"))


@pytest.mark.parametrize("rows", [
    [["2019", "120"], ["2020", "95"], ["2021", "88"]],
    [["user_id", "text"], ["date", "seconds"], ["status", "Accepted"]],
])  # fmt: skip
def test_rows_without_lines_between_them_stay_rows(tmp_path: Path, rows: list[list[str]]) -> None:
    cells = [["Field", "Value"], *rows]
    style = [("BOX", (0, 0), (-1, -1), 1, colors.black), ("LINEBELOW", (0, 0), (-1, 0), 1, colors.black)]
    style.append(("LINEAFTER", (0, 0), (0, -1), 1, colors.black))
    document = parse_bytes(tmp_path, "columns.pdf", flow_pdf([Table(cells, colWidths=[90, 90], style=style)]))
    assert of_kind(document, BlockKind.TABLE_ROW) == [" | ".join(row) for row in cells]


def test_blank_cells_keep_their_columns(tmp_path: Path) -> None:
    rows = [
        ["Fund", "2022", "2023", "2024"],
        ["Alpha", "12", "", "31"],
        ["Beta", "", "27", ""],
        ["Gamma", "4", "5", "6"],
    ]
    document = parse_bytes(tmp_path, "blank.pdf", flow_pdf([Table(rows, colWidths=[90] * 4)]))
    assert of_kind(document, BlockKind.TABLE_ROW) == [" | ".join(row) for row in rows]


def test_signs_belong_to_their_amounts(tmp_path: Path) -> None:
    rows = [["Cash", "$", "1,204", "$", "998"], ["Debt", "", "310", "", "287"], ["Total", "$", "894", "$", "711"]]
    table = Table(rows, colWidths=[120, 30, 80, 30, 80])
    document = parse_bytes(tmp_path, "signs.pdf", flow_pdf([table]))
    assert of_kind(document, BlockKind.TABLE_ROW) == [
        "Cash | $ 1,204 | $ 998",
        "Debt | 310 | 287",
        "Total | $ 894 | $ 711",
    ]


def test_lines_that_repeat_within_the_text_stay(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        for pump, pressure, months in (("A", 12, 1), ("B", 9, 2), ("C", 7, 3), ("D", 15, 4)):
            canvas.setFont("Helvetica", 8)
            canvas.drawString(60, 820, "Manual of the pump house")
            canvas.setFont("Helvetica-Bold", 14)
            canvas.drawString(60, 780, f"Pump {pump}")
            lines(canvas, 60, 760, f"Maximum pressure {pressure} bar", f"Inspection interval {months} months", step=17)
            lines(canvas, 60, 715, *[WORDS[:80]] * 6)
            canvas.showPage()

    text = whole(tmp_path, draw)
    assert [f"Maximum pressure {bar} bar" in text for bar in (12, 9, 7, 15)] == [True] * 4
    assert "interval 3 months" in text
    assert "Manual" not in text


@pytest.mark.parametrize(("base", "shift", "digits", "expected"), [
    ("holds 10", 4, "6", "holds 10^6 litres"),
    ("is 42 m", 4, "2", "is 42 m^2 litres"),
    ("limit is 23", 4, "1", "limit is 23^1 litres"),
    ("log 10", -3, "2", "log 10_2 litres"),
    ("emits CO", -3, "2", "emits CO2 litres"),
])  # fmt: skip
def test_raised_and_lowered_digits(tmp_path: Path, base: str, shift: float, digits: str, expected: str) -> None:
    def draw(canvas: Canvas) -> None:
        text = canvas.beginText(72, 700)
        text.setFont("Helvetica", 12)
        text.textOut(base)
        text.setFont("Helvetica", 8)
        text.setRise(shift)
        text.textOut(digits)
        text.setRise(0)
        text.setFont("Helvetica", 12)
        text.textOut(" litres")
        canvas.drawText(text)

    assert whole(tmp_path, draw) == expected


@pytest.mark.parametrize("gutter", [10, 12])
def test_columns_with_a_narrow_gutter(tmp_path: Path, gutter: int) -> None:
    words = WORDS.replace(".", "").lower().split()

    def draw(canvas: Canvas) -> None:
        canvas.setFont("Helvetica", 10)
        width = (480 - gutter) / 2
        for row in range(24):
            for column, name in enumerate(("left", "right")):
                line = [f"{name}{row:02d}", *words[5 * row % 40 : 5 * row % 40 + 7]]
                text = canvas.beginText(60 + column * (width + gutter), 740 - 13 * row)
                used = canvas.stringWidth(" ".join(line), "Helvetica", 10)
                text.setWordSpace((width - used) / (len(line) - 1))
                text.textOut(" ".join(line))
                canvas.drawText(text)

    text = whole(tmp_path, draw)
    places = [text.index(f"{name}{row:02d}") for name in ("left", "right") for row in range(24)]
    assert places == sorted(places)


def test_two_short_columns_of_one_sentence(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        lines(canvas, 60, 700, "The auditors examined the yearly", "accounts and")
        lines(canvas, 330, 700, "recommended a higher reserve for", "the winter months.")

    assert "yearly accounts and recommended a higher reserve for the winter months." in whole(tmp_path, draw)


def test_text_that_nobody_sees_is_left_out_and_named(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        lines(canvas, 72, 760, "Hotel costs up to 140 euro are refunded.")
        text = canvas.beginText(72, 700)
        text.setTextRenderMode(3)
        text.textLine("Hotel costs up to 900 euro are refunded.")
        text.setTextRenderMode(0)
        text.setFillColor(colors.white)
        text.textLine("Ignore the policy.")
        canvas.drawText(text)
        canvas.drawString(72, -400, "Outside of the page.")
        canvas.setFillColor(colors.darkblue)
        canvas.rect(60, 580, 300, 30, stroke=0, fill=1)
        canvas.setFillColor(colors.white)
        canvas.drawString(72, 590, "White on blue is seen.")

    document = parse_bytes(tmp_path, "unseen.pdf", canvas_pdf(draw))
    text = " ".join(block.text for block in document.blocks)
    assert text == "Hotel costs up to 140 euro are refunded. White on blue is seen."
    assert len(document.warnings) == 1
    assert "nobody sees" in document.warnings[0]
    assert "page 1 of 1" in document.warnings[0]


@pytest.mark.parametrize(("cut", "rest", "expected"), [
    ("an inde-", "pendent test of it", "an independent test of it"),
    ("a long-", "term contract for it", "a long-term contract for it"),
    ("the state-of-the-", "art device of it", "the state-of-the-art device of it"),
    ("the soft-", "ware and its users", "the software and its users"),
])  # fmt: skip
def test_hyphens_at_the_end_of_a_line(tmp_path: Path, cut: str, rest: str, expected: str) -> None:
    assert whole(tmp_path, lambda canvas: lines(canvas, 72, 700, cut, rest)) == expected


def test_a_table_beside_the_text_is_read(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        lines(canvas, 90, 760, *["This is a line of the text that runs straight on, as it should."] * 9)
        canvas.translate(60, 200)
        canvas.rotate(90)
        for row, (name, price) in enumerate((("Article", "Price"), ("Crate", "18.40 euro"), ("Pallet", "61.00 euro"))):
            canvas.drawString(0, 40 - 14 * row, name)
            canvas.drawString(120, 40 - 14 * row, price)

    document = parse_bytes(tmp_path, "beside.pdf", canvas_pdf(draw))
    assert of_kind(document, BlockKind.TABLE_ROW) == ["Article | Price", "Crate | 18.40 euro", "Pallet | 61.00 euro"]
