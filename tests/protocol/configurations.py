"""Which operations are explored together, with which faults; small ones first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.protocol.state import Operation


class Configuration(NamedTuple):
    """What clients do to one document, and what may go wrong meanwhile."""

    operations: tuple[Operation, ...]
    acl: str
    """Of the document that is there at first; empty: none is."""
    passages: int = 2
    crashes: int = 0
    """How often a process may be killed or a primary be lost."""
    delays: int = 0
    """How many requests may time out, to be applied later or never."""
    early_sweep: bool = False
    """Whether the sweep may begin once while operations are under way; when all have ended it always may."""
    reader: bool = False
    """Whether the service searches once, for a caller who may read public documents only."""
    forgets: bool = False
    """Whether OpenSearch may forget its tombstones while a late request is under way (`index.gc_deletes`)."""

    @property
    def name(self) -> str:
        """The configuration in words."""
        faults = {
            f"{self.passages} passages": True,
            "kill -9": self.crashes,
            "delayed request": self.delays,
            "early sweep": self.early_sweep,
            "reader": self.reader,
            "forgets": self.forgets,
        }
        operations = " + ".join(map(str, self.operations))
        return f"{self.acl or 'absent':7}{operations} ({', '.join(fault for fault, may in faults.items() if may)})"


def configuration(case: str, variant: str) -> Configuration:
    """Read a configuration.

    Args:
        case: the acl of the document that is there (or `absent`) and the operations, as in `hr put-public patch-it`.
        variant: number of passages, then c: a crash, d: a delayed request, s: an early sweep, r: a reader,
            f: forgotten tombstones.
    """
    acl, *operations = case.split()
    verbs_and_acls = (operation.partition("-") for operation in operations)
    return Configuration(
        operations=tuple(Operation(verb, named) for verb, _, named in verbs_and_acls),
        acl="" if acl == "absent" else acl,
        passages=int(variant[0]),
        crashes=int("c" in variant),
        delays=int("d" in variant),
        early_sweep="s" in variant,
        reader="r" in variant,
        forgets="f" in variant,
    )


_SINGLES: Final = ("public patch-hr", "public delete", "public put", "absent put", "hr put-public")
_PAIRS: Final = (
    "absent put patch-hr",
    "absent put delete",
    "public patch-hr patch-it",
    "public patch-hr delete",
    "public delete delete",
    "hr patch-public patch-hr",
    "hr patch-public put",
    "public put patch-hr",
    "hr put delete",
    "hr put-public patch-it",
    "hr put-public delete",
    "public put-hr patch-hr",
)
_PAIRS_WITH_EARLY_SWEEP: Final = (
    "public patch-hr patch-it",
    "public patch-hr delete",
    "public put patch-hr",
    "public put delete",
)
_PAIRS_OF_PUTS: Final = ("public put put", "absent put put", "hr put-public put")
_TRIPLES: Final = tuple(
    " ".join(("public", *operations))
    for operations in itertools.combinations_with_replacement(("delete", "patch-hr", "put"), 3)
)


NOTICED_BY: Final = {
    "cas": ("TWICE", "public patch-hr", "1d"),
    "fence": ("RESTORED", "public put patch-hr", "1"),
    "fence-before-erase": ("LOST", "absent put", "1s"),
    "fresh-token": ("LOST", "absent put", "1s"),
    "erase-by-list": ("LOST", "absent put", "1s"),
    "tombstones": ("NATIVE", "absent put", "1s"),
    "versions": ("NATIVE", "public patch-hr patch-it", "1"),
    "refresh-before-commit": ("NOT FOUND", "public put", "1"),
    "refresh-before-answer": ("NATIVE", "public delete", "1"),
    "refresh-before-settle": ("NATIVE", "absent put patch-hr", "1"),
    "confirm": ("LOST", "public delete", "1cd"),
    "tidy-before-unchanged": ("NATIVE", "public patch-hr patch-hr", "1"),
    "unknown": ("LIE", "absent put delete", "1d"),
    "head-check": ("SHOWN", "public patch-hr", "1r"),
}
"""By safeguard: the violation that is possible without it, and the smallest configuration that shows it."""


def quick_configurations() -> Iterator[Configuration]:
    """Those of the quick check: all single operations and all pairs, each pair with one kind of fault at a time."""
    for cases, variants in (
        (_SINGLES, "2cds"),
        (_PAIRS, "2c 1d 1r"),
        (_PAIRS_OF_PUTS[:2], "2c 1d 1r"),
        (_PAIRS_OF_PUTS[2:], "1c 1r"),
        (_PAIRS_WITH_EARLY_SWEEP, "1s"),
    ):
        for case, variant in itertools.product(cases, variants.split()):
            yield configuration(case, variant)


def all_configurations() -> Iterator[Configuration]:
    """The configurations of the full check."""
    for cases, variants in (
        (_SINGLES, "2cds"),
        (_PAIRS, "2cd 2cr"),
        (_PAIRS_WITH_EARLY_SWEEP, "1ds"),
        (_PAIRS_OF_PUTS, "1r 1cd 1cs 2d"),
        (_TRIPLES, "1"),
        (("public put patch-hr delete",), "1c 1d"),
        (("hr put put-public patch-it", "public put put patch-hr"), "1c"),
    ):
        for case, variant in itertools.product(cases, variants.split()):
            yield configuration(case, variant)


def forgetful_configurations() -> Iterator[Configuration]:
    """Those of the full check with two passages, crashes and delayed requests, where tombstones are forgotten."""
    for full in all_configurations():
        if full.passages == 2 and full.crashes and full.delays:
            yield full._replace(forgets=True)
