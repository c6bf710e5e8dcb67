"""Checks of what each format's reader gives, on cases made after public bug reports. See parsing.md."""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from app.errors import DocumentRejected
from app.ingest.formats import parse_file
from app.passage import Block, BlockKind, ParsedDocument

ROOT = Path(__file__).parents[1]
CASES = ROOT.parent / "shared" / "cases"
RESULT = ROOT / "benchmarks" / "results" / "parsing.json"
LONGEST_ROW = 320


def plain(text: str) -> str:
    """Lower-case words, without marks: what `has`, `one`, `no` and `row` compare."""
    return " ".join(re.findall(r"[^\W_]+(?:[.,:/'-]\w+)*|[€%£$]", text.lower()))


def in_order(text: str, words: list[str]) -> bool:
    at = 0
    for word in words:
        found = text.find(plain(word), at)
        if found < 0:
            return False
        at = found + len(plain(word))
    return True


def cells(block: Block) -> list[str]:
    return [cell.strip() for cell in block.text.split("|")]


def holds(document: ParsedDocument, kind: str, *args: Any) -> bool:
    """Whether a document passes a check; the kinds are those of the cases' README."""
    raw = "\n".join([document.title, *(block.text for block in document.blocks)])
    text, wanted = plain(raw), plain(str(args[0]))
    short = [block for block in document.blocks if len(block.text) < LONGEST_ROW]
    headings = [plain(block.text) for block in document.blocks if block.kind is BlockKind.HEADING]
    match kind:
        case "has":
            return wanted in text
        case "no":
            return wanted not in text
        case "raw":
            return args[0] in raw
        case "noraw":
            return args[0] not in raw
        case "one":
            return any(wanted in plain(block.text) for block in document.blocks)
        case "order":
            return in_order(text, list(args))
        case "row":
            return any(in_order(plain(block.text), list(args)) for block in short)
        case "cells":
            given = args[0] if isinstance(args[0], list) else list(args)
            return any(cells(block) == given for block in document.blocks)
        case "head":
            return any(wanted in heading for heading in headings)
        case "nohead":
            return not any(wanted in heading for heading in headings)
        case "page":
            return any(block.page == args[1] and wanted in plain(block.text) for block in document.blocks)
        case "most":
            return text.count(wanted) <= args[1]
    raise ValueError(f"{kind!r}: an unknown kind of check")


def failures(path: Path, checks: list[list[Any]]) -> list[list[Any]]:
    try:
        document = parse_file(path)
    except DocumentRejected:
        return checks
    return [check for check in checks if not holds(document, *check)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--show", action="store_true", help="print the checks that fail")
    shown = parser.parse_args().show
    cases: dict[str, list[list[Any]]] = json.loads((CASES / "parsing.json").read_text())
    result: dict[str, dict[str, int]] = defaultdict(lambda: {"files": 0, "checks": 0, "passed": 0})
    for name, checks in sorted(cases.items()):
        failed = failures(CASES / "files" / name, checks)
        row = result[Path(name).suffix[1:]]
        row["files"] += 1
        row["checks"] += len(checks)
        row["passed"] += len(checks) - len(failed)
        for check in failed if shown else []:
            print(name, json.dumps(check, ensure_ascii=False))
    total = {key: sum(row[key] for row in result.values()) for key in ("files", "checks", "passed")}
    RESULT.write_text(json.dumps({**result, "all": total}, indent=1) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
