"""Parts of pages that are made from the code. Each stands between two comments, the first of which says how."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def _part(module: str, name: str) -> re.Pattern[str]:
    begin = re.escape(f"<!-- {name}: made by python -m {module} -->\n\n")
    return re.compile(f"(?<={begin})(?:(?!<!-- ).)*(?=\n<!-- end -->)", re.DOTALL)


def read_part(page: Path, module: str, name: str) -> str:
    """The part `name` of a page, as it is. Raises ValueError: there is not just one."""
    (shown,) = _part(module, name).findall(page.read_text())
    return str(shown)


def write_part(page: Path, module: str, name: str, text: str) -> None:
    page.write_text(_part(module, name).sub(lambda _: text, page.read_text()))
