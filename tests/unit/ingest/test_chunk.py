from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.ingest.passages.chunk import MAXIMUM, MINIMUM, chunk
from app.passage import Block, BlockKind, ParsedDocument, SourceType
from tests.unit.ingest.conftest import Offsets, words


def document(*blocks: Block, title: str = "", source_type: SourceType = SourceType.MARKDOWN) -> ParsedDocument:
    return ParsedDocument(title, blocks, source_type)


def heading(text: str, level: int = 1, page: int | None = None) -> Block:
    return Block(BlockKind.HEADING, text, page, level)


def paragraph(text: str, page: int | None = None) -> Block:
    return Block(BlockKind.PARAGRAPH, text, page)


def row(text: str) -> Block:
    return Block(BlockKind.TABLE_ROW, text)


def item(text: str) -> Block:
    return Block(BlockKind.LIST_ITEM, text)


def sentence(n: int, length: int = 10) -> str:
    return " ".join([f"Sentence{n}", *(f"word{n}x{i}" for i in range(length - 2)), "ends."])


def solid(text: str) -> str:
    return re.sub(r"\s", "", text)


def test_a_short_section_is_one_passage_with_its_path_as_heading() -> None:
    drafts = chunk(
        document(
            heading("Guide"), heading("Setup", 2), paragraph("Do this."), heading("Use", 2), paragraph("Do that.")
        ),
        words,
    )
    assert [(d.section_heading, d.text, d.token_count, d.position) for d in drafts] == [
        ("Guide > Setup", "Do this.", 2, 0),
        ("Guide > Use", "Do that.", 2, 1),
    ]


def test_the_title_is_not_repeated_in_the_path() -> None:
    (draft,) = chunk(document(heading("Guide"), heading("Setup", 2), paragraph("Do."), title="Guide"), words)
    assert draft.section_heading == "Setup"


def test_long_prose_is_cut_at_sentences_into_passages_of_like_size(offsets: Offsets) -> None:
    text = " ".join(sentence(n) for n in range(300))
    drafts = chunk(document(paragraph(text)), offsets)
    assert all(MINIMUM <= draft.token_count <= 250 for draft in drafts)
    assert all(draft.text.endswith("ends.") for draft in drafts)
    assert " ".join(draft.text for draft in drafts) == text
    assert [draft.token_count for draft in drafts] == [len(offsets(draft.text)) for draft in drafts]


def test_a_short_leftover_joins_its_neighbour() -> None:
    text = " ".join(sentence(n) for n in range(23))  # 230 words: 200 and 30 would be the greedy cut
    assert [draft.token_count for draft in chunk(document(paragraph(text)), words)] == [230]


def test_what_the_model_would_not_read_is_put_in_a_passage_of_its_own() -> None:
    text = " ".join(sentence(n) for n in range(28))
    assert [d.token_count for d in chunk(document(paragraph(text)), words)] == [280]
    assert [d.token_count for d in chunk(document(paragraph(text)), words, room=240)] == [140, 140]


def test_cuts_fall_between_paragraphs_rather_than_sentences() -> None:
    paragraphs = [paragraph(" ".join(sentence(n * 100 + i) for i in range(9))) for n in range(6)]
    drafts = chunk(document(*paragraphs), words)
    assert [draft.text.count("\n\n") for draft in drafts] == [1, 1, 1]


def test_a_blank_line_inside_a_text_is_a_paragraph_too() -> None:
    text = "\n\n".join(" ".join(sentence(n * 100 + i) for i in range(18)) for n in range(3))
    assert [draft.token_count for draft in chunk(document(paragraph(text)), words)] == [180, 180, 180]


def test_overlap_repeats_whole_sentences_but_never_from_another_section() -> None:
    text = " ".join(sentence(n) for n in range(60))
    drafts = chunk(document(paragraph(text), heading("Next"), paragraph("Short.")), words, overlap=25)
    prose, last = drafts[:-1], drafts[-1]
    assert len(prose) > 2
    for before, after in pairwise(prose):
        shared = after.text[: after.text.index("ends.", after.text.index("ends.") + 5) + 5]
        assert before.text.endswith(shared)
        assert len(shared.split()) == 20
        assert after.token_count == len(after.text.split()) <= MAXIMUM
    assert last.text == "Short."


def test_no_overlap_where_the_last_sentence_is_longer_than_it() -> None:
    drafts = chunk(document(paragraph(" ".join(sentence(n, 60) for n in range(10)))), words, overlap=50)
    assert sum(draft.token_count for draft in drafts) == 600


def test_a_sentence_that_is_too_long_is_cut_at_a_clause(offsets: Offsets) -> None:
    text = ", ".join(" ".join(f"w{n}" for _ in range(40)) for n in range(20)) + "."
    drafts = chunk(document(paragraph(text)), offsets)
    assert len(drafts) > 2
    assert all(draft.text.endswith((",", ".")) for draft in drafts)
    assert all(draft.token_count <= MAXIMUM for draft in drafts)


def test_words_without_any_mark_are_cut_between_words(offsets: Offsets) -> None:
    text = " ".join(f"word{n}" for n in range(2_000))
    drafts = chunk(document(paragraph(text)), offsets)
    assert " ".join(draft.text for draft in drafts) == text
    assert all(draft.token_count <= MAXIMUM for draft in drafts)


@pytest.mark.parametrize("blob", ["A" * 50_000, "0123456789abcdef" * 3_000, "汉字" * 5_000, "-=" * 10_000])
def test_a_blob_is_cut_too_and_kept(blob: str, offsets: Offsets) -> None:
    drafts = chunk(document(paragraph(blob)), offsets)
    assert "".join(solid(draft.text) for draft in drafts) == blob
    assert all(draft.token_count <= MAXIMUM and len(draft.text) <= MAXIMUM * 20 + 19 for draft in drafts)


def test_a_split_table_repeats_its_header_and_keeps_rows_whole(offsets: Offsets) -> None:
    rows = [f"item {n} | {n * 3} euros | some words in a cell" for n in range(80)]
    drafts = chunk(document(paragraph("Prices."), row("name | price | remark"), *map(row, rows)), offsets)
    assert len(drafts) > 3
    seen = []
    for draft in drafts:
        lines = draft.text.removeprefix("Prices.\n\n").splitlines()
        assert lines[0] == "name | price | remark"
        seen += lines[1:]
        assert draft.token_count == len(offsets(draft.text)) <= MAXIMUM
    assert seen == rows


def test_a_table_that_fits_is_not_cut() -> None:
    rows = [row(" | ".join(f"c{n}x{i}" for i in range(10))) for n in range(8)]
    prose = paragraph(" ".join(sentence(n) for n in range(15)))
    drafts = chunk(document(prose, *rows), words)
    assert drafts[-1].text.splitlines() == [row.text for row in rows]


def test_list_items_stay_together_with_what_introduces_them() -> None:
    before = paragraph(" ".join(sentence(n) for n in range(16)))
    intro = paragraph("The parts are as follows and you need all of them here:")
    items = [item(f"part {n} which is a thing of some use to you") for n in range(9)]
    drafts = chunk(document(before, intro, *items), words)
    (with_list,) = [draft for draft in drafts if "part 0" in draft.text]
    assert "The parts" in with_list.text
    assert "part 8" in with_list.text


def test_code_is_cut_between_lines() -> None:
    code = "\n".join(f"    value_{n} = call ( {n} , {n} )  # remark" for n in range(120))
    drafts = chunk(document(Block(BlockKind.CODE, code)), words)
    assert len(drafts) > 3
    lines = [line.strip() for draft in drafts for line in draft.text.splitlines()]
    assert lines == [line.strip() for line in code.splitlines()]


def test_headings_with_nothing_below_are_not_lost() -> None:
    drafts = chunk(
        document(heading("A"), heading("B", 2), heading("C", 2), paragraph("Text."), heading("D"), heading("E")), words
    )
    assert [(draft.section_heading, draft.text) for draft in drafts] == [("A > C", "B\n\nC\n\nText.\n\nD\n\nE")]


def test_headings_alone_are_a_passage() -> None:
    assert [draft.text for draft in chunk(document(heading("A"), heading("B")), words)] == ["A\n\nB"]


def test_a_heading_as_long_as_a_paragraph_is_one() -> None:
    (draft,) = chunk(document(heading("Very " * 60), paragraph("Text.")), words)
    assert draft.section_heading == ""
    assert draft.text.startswith("Very Very")


def test_a_slide_is_a_section_and_its_notes_go_with_it() -> None:
    drafts = chunk(
        document(
            heading("Intro", page=1),
            Block(BlockKind.LIST_ITEM, "One point", 1),
            Block(BlockKind.NOTES, "Say hello.", 1),
            heading("Part two", page=2),
            paragraph("No title here", page=3),
            paragraph("Nor here", page=4),
            source_type=SourceType.PPTX,
        ),
        words,
    )
    assert [(d.section_heading, d.page, d.text) for d in drafts] == [
        ("Intro", 1, "One point\n\nSay hello."),
        ("", 2, "Part two"),
        ("", 3, "No title here"),
        ("", 4, "Nor here"),
    ]


def test_a_passage_has_the_page_on_which_it_begins() -> None:
    text = " ".join(sentence(n) for n in range(20))
    drafts = chunk(document(paragraph(text, page=3), paragraph(text, page=4)), words)
    assert [draft.page for draft in drafts] == [3, 4]


def test_passages_end_with_their_page_where_the_page_is_long_enough() -> None:
    pages = [" ".join(sentence(100 * page + n) for n in range(13)) for page in (1, 2, 3)]
    drafts = chunk(document(*(paragraph(text, page=page) for page, text in enumerate(pages, 1))), words)
    assert [(draft.page, draft.text) for draft in drafts] == list(enumerate(pages, 1))


def test_pages_of_a_few_words_are_joined() -> None:
    drafts = chunk(document(*(paragraph(sentence(page), page=page) for page in range(1, 12))), words)
    assert [(draft.page, draft.pages) for draft in drafts] == [(1, tuple(range(1, 12)))]


def test_pages_are_those_that_the_text_was_cut_from() -> None:
    long = " ".join(sentence(n) for n in range(15))
    first = chunk(document(paragraph(long, page=3), paragraph("A short end.", page=5)), words)
    assert [(draft.page, draft.pages) for draft in first] == [(3, (3, 5))]
    assert [draft.pages for draft in chunk(document(paragraph(long)), words)] == [()]
    # sentences that are repeated from the passage before stand on its page
    repeated = chunk(document(paragraph(long, page=1), paragraph(long, page=2)), words, overlap=25)
    assert [(draft.page, draft.pages) for draft in repeated] == [(1, (1,)), (2, (1, 2))]


def test_a_ready_document_that_is_a_passage_already_is_not_cut() -> None:
    text = " ".join(sentence(n) for n in range(29)) + "\n\nEnd."
    assert len(chunk(document(paragraph(text)), words)) == 2
    (draft,) = chunk(document(paragraph(text), source_type=SourceType.JSON), words)
    assert draft.text == text


def test_nothing_comes_of_nothing() -> None:
    assert chunk(document(), words) == []
    assert chunk(document(paragraph(" \n"), item("")), words) == []


_KINDS = [kind for kind in BlockKind if kind is not BlockKind.HEADING]
_WORDS = st.text(alphabet="abcdefgé漢0,;(", min_size=1, max_size=8)
_SENTENCES = st.lists(_WORDS, min_size=1, max_size=30).map(lambda found: " ".join(found).capitalize() + ".")
_TEXTS = st.lists(_SENTENCES, min_size=1, max_size=15).map(" ".join)
_BLOCKS = st.lists(
    st.one_of(
        st.builds(Block, st.sampled_from(_KINDS), _TEXTS, st.none() | st.integers(1, 5)),
        st.builds(Block, st.just(BlockKind.HEADING), _SENTENCES.map(lambda t: t[:150]), st.none(), st.integers(0, 4)),
    ),
    max_size=12,
)


def _marked(blocks: list[Block]) -> tuple[Block, ...]:
    """Blocks whose text begins with a word of its own, by which it is found again."""
    return tuple(
        block if block.kind is BlockKind.HEADING else replace(block, text=f"Block{n}x {block.text}")
        for n, block in enumerate(blocks)
    )


_DOCUMENTS = st.builds(
    ParsedDocument,
    st.sampled_from(["", "A title"]),
    _BLOCKS.map(_marked),
    st.sampled_from([SourceType.MARKDOWN, SourceType.PPTX, SourceType.JSON]),
)


def _check_properties(parsed: ParsedDocument, offsets: Offsets, target: int, overlap: int) -> None:
    drafts = chunk(parsed, offsets, target=target, overlap=overlap)
    assert drafts == chunk(parsed, offsets, target=target, overlap=overlap)
    assert [draft.position for draft in drafts] == list(range(len(drafts)))
    assert all(draft.text.strip() and 0 < draft.token_count <= MAXIMUM for draft in drafts)
    # all content is kept, in order: each block's words are found in the passages, or in a passage's heading
    stored = " ".join(f"{draft.section_heading} {draft.text}" for draft in drafts)
    for block in parsed.blocks:
        for word in block.text.split():
            assert word in stored
    if not overlap and all(block.kind not in (BlockKind.HEADING, BlockKind.TABLE_ROW) for block in parsed.blocks):
        assert "".join(solid(draft.text) for draft in drafts) == "".join(solid(block.text) for block in parsed.blocks)
    # none crosses a heading: no passage holds the first words of blocks of two sections
    section = 0
    section_of: dict[str, int] = {}
    for block in parsed.blocks:
        if block.kind is BlockKind.HEADING:
            section += 1
        else:
            section_of[block.text.split()[0]] = section
    for draft in drafts:
        assert len({section_of[mark] for mark in re.findall(r"Block\d+x", draft.text)}) <= 1


@settings(max_examples=150, deadline=None)
@given(_DOCUMENTS, st.sampled_from([100, 200, 300]), st.sampled_from([0, 40]))
def test_properties_with_a_word_tokenizer(parsed: ParsedDocument, target: int, overlap: int) -> None:
    _check_properties(parsed, words, target, overlap)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parsed=_DOCUMENTS, overlap=st.sampled_from([0, 40]))
def test_properties_with_the_real_tokenizer(parsed: ParsedDocument, overlap: int, minilm_offsets: Offsets) -> None:
    _check_properties(parsed, minilm_offsets, 200, overlap)
