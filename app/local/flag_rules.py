"""The targeting that `braid flags set` writes: by tenant and by percent of the callers; read back; in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.errors import InvalidInput

Definition = Mapping[str, Any]
"""One flag of a flagd file."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Percent of the callers for whom the flag is on: of everybody, and of the tenants that have their own."""

    everybody: int
    tenants: Mapping[str, int] = field(default_factory=dict)

    def describe(self) -> str:
        """In words, such as ``on; a, b: off``."""
        groups = [
            f"{', '.join(sorted(t for t, p in self.tenants.items() if p == percent))}: {_percent(percent)}"
            for percent in sorted(set(self.tenants.values()), reverse=True)
        ]
        return "; ".join([_percent(self.everybody), *groups])


def read_rule(flag: Definition) -> Rule | None:
    """The rule that `flag` was written from; None where its targeting is somebody's own."""
    try:
        on, off = _names(flag)
    except InvalidInput:
        return None
    tenants: dict[str, int] = {}
    everybody = 100 if flag["variants"][flag["defaultVariant"]] else 0
    rest = flag.get("targeting") or None
    while isinstance(rest, dict) and "if" in rest:
        try:
            condition, outcome, rest = rest["if"]
            named = condition["in"][1]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
        percent = _read_outcome(outcome, on)
        if percent is None or not isinstance(named, list):
            return None
        tenants |= {str(name): percent for name in named}
    if rest is not None:
        found = _read_outcome(rest, on)
        if found is None:
            return None
        everybody = found
    rule = Rule(everybody, tenants)
    # whatever was added by hand would not come out again
    return rule if _targeting(rule, on, off) == (flag.get("targeting") or {}) else None


def write_rule(flag: Definition, rule: Rule) -> dict[str, Any]:
    """`flag` with the targeting of `rule`; what else it has stays.

    Raises:
        InvalidInput: it has no variant for on, or for off.
    """
    on, off = _names(flag)
    written = {name: value for name, value in flag.items() if name != "targeting"} | {"state": "ENABLED"}
    if rule.everybody in (0, 100):
        written["defaultVariant"] = on if rule.everybody else off
    targeting = _targeting(rule, on, off)
    return written | {"targeting": targeting} if targeting else written


def _names(flag: Definition) -> tuple[str, str]:
    """The variants that mean on and off."""
    names = {value: name for name, value in reversed(list(flag["variants"].items()))}
    if len(names) != 2:
        raise InvalidInput(
            f'the flag has only the variants {", ".join(flag["variants"])}: it needs {{"on": true, "off": false}}'
        )
    return names[True], names[False]


def _targeting(rule: Rule, on: str, off: str) -> dict[str, Any]:
    """flagd takes an `if` of three; more cases are nested in the third."""
    rest = _outcome(rule.everybody, on, off) if 0 < rule.everybody < 100 else None
    for percent in sorted(set(rule.tenants.values())):
        named = sorted(tenant for tenant, share in rule.tenants.items() if share == percent)
        rest = {"if": [{"in": [{"var": "tenant"}, named]}, _outcome(percent, on, off), rest]}
    return rest if isinstance(rest, dict) else {}


def _outcome(percent: int, on: str, off: str) -> Any:
    """`on` first, so that who has the flag at 10 % has it at 20 %."""
    if percent in (0, 100):
        return on if percent else off
    return {"fractional": [[on, percent], [off, 100 - percent]]}


def _read_outcome(outcome: Any, on: str) -> int | None:
    if isinstance(outcome, str):
        return 100 if outcome == on else 0
    try:
        percent = outcome["fractional"][0][1]
    except (KeyError, IndexError, TypeError):
        return None
    return percent if isinstance(percent, int) else None


def _percent(percent: int) -> str:
    return {0: "off", 100: "on"}.get(percent, f"on for {percent} %")
