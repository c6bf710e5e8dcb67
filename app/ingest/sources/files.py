"""Source of local files: the files and ready documents under given paths, in a fixed order, with their identities.

A file's id is `<root>/<relative path>` with forward slashes, in Unicode's composed form (NFC). `<root>` is the name of
the given folder (for a given file, of its folder), so that ids are the same on every machine and contain no server's
path. If the caller names a source, it is `<source>/<root>/<relative path>`. `source_id` is the root's name, or the
named source.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from app.access import AccessChange
from app.errors import DocumentRejected, InvalidInput
from app.ingest.passages.enrich import normalise_tags
from app.ingest.records import BadLine, count_lines, is_records, read_records, ready_document, record_id
from app.passage import Document
from app.values import check_control_characters, nfc, printable

LONGEST_ID = 512


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to parse."""

    path: Path
    document_id: str
    source_id: str
    uri: str
    folders: tuple[str, ...]
    """Names of the folders between the root and the file, used as topic tags."""


@dataclass(frozen=True, slots=True)
class Record:
    """A ready document of a JSON Lines file, and the modification time of that file."""

    document: Document
    place: str
    modified: float


@dataclass(frozen=True, slots=True)
class Problem:
    """An item that can't be ingested. `place` is a file, a folder or ``file:line``, in a form for the caller.

    `document_id` is the id of the document, if known. `hides` is True if documents with unknown ids may be behind it
    (an unreadable folder, a line that is not JSON); then no document counts as removed.
    """

    place: str
    reason: str
    detail: str
    hides: bool = False
    document_id: str | None = None


@dataclass(frozen=True, slots=True)
class Defaults:
    """The caller's defaults for every document. With `acl` None a document keeps its readers, and a new one is public.

    `restrictions`: those of `acl_1` ... `acl_4` that the caller names; a document keeps the others. `extra`: see
    `Document`.
    """

    tenant: str
    source_id: str | None = None
    tags: tuple[str, ...] = ()
    acl: tuple[str, ...] | None = None
    whole: bool = False
    restrictions: AccessChange = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Root:
    """One of the given paths: a folder, or a file with its folder."""

    folder: Path
    only: Path | None
    name: str


def roots_of(paths: Sequence[Path]) -> list[Root]:
    """Return the roots of `paths`.

    Raises:
        InvalidInput: a path does not exist, or two folders have the same name, so that the ids of their documents could
            clash.
    """
    roots: list[Root] = []
    for path in paths:
        full = Path(os.path.abspath(path))
        if not full.exists():
            raise InvalidInput(f"{printable(str(path))}: this file or folder does not exist")
        folder = full if full.is_dir() else full.parent
        roots.append(Root(folder, None if full.is_dir() else full, folder.name or "root"))
    taken: dict[str, Path] = {}
    for root in roots:
        if taken.setdefault(root.name, root.folder) != root.folder:
            raise InvalidInput(
                f"two different folders are named {printable(root.name)!r}, so the ids of their documents would clash: "
                f"ingest them one after the other, each with a --source of its own"
            )
    return roots


def list_files(root: Root) -> Iterator[Path | Problem]:
    """Yield the files of a root, depth first, by name, without hidden ones.

    Symbolic links are not followed: one inside the root names a file that is listed anyway (or a loop), and one that
    leads outside could ingest something unintended. The latter are reported.
    """
    if root.only is not None:
        yield root.only
        return
    yield from _list(root, root.folder, root.folder.resolve())


def _list(root: Root, folder: Path, real_root: Path) -> Iterator[Path | Problem]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        yield Problem(_place(root, folder), "unreadable", f"the folder can't be read: {error.strerror}", hides=True)
        return
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if entry.is_symlink():
            if not _inside(path, real_root):
                yield Problem(
                    _place(root, path),
                    "link-outside",
                    "a link to nothing, or to a place outside the folder: give its target as a path of its own",
                )
        elif entry.is_dir(follow_symlinks=False):
            yield from _list(root, path, real_root)
        elif entry.is_file(follow_symlinks=False):
            yield path
        else:
            yield Problem(_place(root, path), "not-a-file", "neither a file nor a folder (a socket, pipe or device)")


def _inside(link: Path, real_root: Path) -> bool:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return link.is_symlink() and _is_loop(link)
    return target == real_root or real_root in target.parents


def _is_loop(link: Path) -> bool:
    try:
        os.stat(link)
    except OSError as error:
        return error.errno == errno.ELOOP  # links that lead to each other hide nothing
    return False


def _place(root: Root, path: Path) -> str:
    return printable(_relative(root, path))


def _relative(root: Root, path: Path) -> str:
    return str(PurePosixPath(root.name, *path.relative_to(root.folder).parts))


def describe(root: Root, path: Path, defaults: Defaults) -> SourceFile | Problem:
    """Return the identity of a file, or why it can't have one."""
    uri = _relative(root, path)
    document_id = nfc(uri if defaults.source_id is None else f"{defaults.source_id}/{uri}")
    try:
        check_control_characters(document_id)
    except ValueError:
        return Problem(
            printable(uri), "bad-name", "the name contains control characters or is not valid UTF-8: rename the file"
        )
    if len(document_id) > LONGEST_ID:
        return Problem(printable(uri), "bad-name", f"the path is longer than {LONGEST_ID} characters: move the file up")
    folders = path.relative_to(root.folder).parts[:-1]
    return SourceFile(path, document_id, nfc(defaults.source_id or root.name), uri, folders)


def read_source(
    roots: Sequence[Root], defaults: Defaults, count: Callable[[int], None] | None = None
) -> Iterator[SourceFile | Record | Problem]:
    """Yield everything in `roots`: files in their order, the lines of JSON Lines files streamed.

    `count` receives the number of further documents as soon as it is known.
    """
    seen: set[Path] = set()
    composed: set[str] = set()
    for root in roots:
        files: list[Path] = []
        for item in list_files(root):
            if isinstance(item, Problem):
                yield item
            elif (real := item.resolve()) not in seen:
                seen.add(real)
                files.append(item)
        if count:
            count(sum(not is_records(path) for path in files))
        for path in files:
            described = describe(root, path, defaults)
            if isinstance(described, SourceFile) and is_records(path):
                if count:
                    count(count_lines(path))
                yield from _records(described, defaults)
            elif isinstance(described, SourceFile) and not described.document_id.isascii():
                if described.document_id in composed:
                    yield Problem(
                        printable(described.uri),
                        "bad-name",
                        "another file has this name, spelled with other Unicode characters: rename one of them",
                        document_id=described.document_id,
                    )
                    continue
                composed.add(described.document_id)
                yield described
            else:
                yield described


def _records(file: SourceFile, defaults: Defaults) -> Iterator[Record | Problem]:
    try:
        about = file.path.stat()
    except OSError as error:
        yield Problem(file.uri, "unreadable", f"the file can't be read: {error.strerror}", hides=True)
        return
    if not stat.S_ISREG(about.st_mode):
        yield Problem(file.uri, "not-a-file", "not a regular file")
        return
    tags = normalise_tags((*defaults.tags, *file.folders))
    for item in read_records(file.path):
        if isinstance(item, BadLine):
            yield Problem(f"{file.uri}:{item.number}", item.reason, item.detail, hides=True)
            continue
        number, row = item
        place = f"{file.uri}:{number}"
        try:
            document = ready_document(
                row,
                tenant=defaults.tenant,
                source_id=file.source_id,
                uri=file.uri,
                tags=tags,
                acl=defaults.acl,
                restrictions=defaults.restrictions,
                whole=defaults.whole,
                title_is_enough=True,
            )
        except DocumentRejected as error:
            known = record_id(row)
            yield Problem(place, error.reason, error.detail, hides=known is None, document_id=known)
        else:
            yield Record(document, place, about.st_mtime)
