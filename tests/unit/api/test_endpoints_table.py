"""The table in docs/access.md is that of the declared endpoints.

To write it anew: ``python -m tests.unit.api.test_endpoints_table``.
"""

from __future__ import annotations

import re

from app.api.factory import ENDPOINTS
from tests.unit.generated import DOCS, read_part, write_part

PAGE, MODULE, PART = DOCS / "access.md", "tests.unit.api.test_endpoints_table", "endpoints"


def table() -> str:
    lines = ["| call | role | action in the audit log |", "|---|---|---|"]
    for endpoint in ENDPOINTS:
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", endpoint.rule)
        role = f"`{endpoint.role}`" if endpoint.role is not None else "open to all"
        action = f"`{endpoint.audit}`" if endpoint.audit is not None else ""
        lines.append(f"| `{endpoint.method} {path}` | {role} | {action} |")
    return "\n".join(lines) + "\n"


def test_the_table_is_current() -> None:
    assert read_part(PAGE, MODULE, PART) == table()


if __name__ == "__main__":
    write_part(PAGE, MODULE, PART, table())
