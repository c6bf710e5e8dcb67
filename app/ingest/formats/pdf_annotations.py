"""Annotations of a PDF page: values of form fields, text boxes, and comments."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pypdfium2 as pdfium
from pypdfium2 import raw

_MAX_ANNOTATIONS = 2_000
_MAX_TEXT = 20_000
"""Maximum characters of one annotation."""
_HIDDEN = raw.FPDF_ANNOT_FLAG_HIDDEN | raw.FPDF_ANNOT_FLAG_NOVIEW
_PASSWORD = 1 << 13
_COMMENTS = (
    raw.FPDF_ANNOT_TEXT,
    raw.FPDF_ANNOT_HIGHLIGHT,
    raw.FPDF_ANNOT_UNDERLINE,
    raw.FPDF_ANNOT_STRIKEOUT,
    raw.FPDF_ANNOT_SQUIGGLY,
    raw.FPDF_ANNOT_STAMP,
    raw.FPDF_ANNOT_CARET,
)


@dataclass(frozen=True, slots=True)
class Annotation:
    """Text with its place in PDF coordinates; `comment` is True for text that is not on the page itself."""

    text: str
    left: float
    bottom: float
    right: float
    top: float
    comment: bool


def annotations_of(page: pdfium.PdfPage, form: pdfium.PdfFormEnv | None) -> Iterator[Annotation]:
    """Yield the visible values of fields, text boxes and comments of a page. `form` is None without fields."""
    for index in range(min(raw.FPDFPage_GetAnnotCount(page.raw), _MAX_ANNOTATIONS)):
        annotation = raw.FPDFPage_GetAnnot(page.raw, index)
        if not annotation:
            continue
        try:
            kind = raw.FPDFAnnot_GetSubtype(annotation)
            if raw.FPDFAnnot_GetFlags(annotation) & _HIDDEN:
                continue
            if kind == raw.FPDF_ANNOT_WIDGET:
                text = _value(form, annotation) if form is not None else ""
            elif kind in _COMMENTS or kind == raw.FPDF_ANNOT_FREETEXT:
                text = _string(raw.FPDFAnnot_GetStringValue, annotation, b"Contents")
            else:
                continue
            rect = raw.FS_RECTF()
            if text.strip() and raw.FPDFAnnot_GetRect(annotation, ctypes.byref(rect)):
                yield Annotation(text, rect.left, rect.bottom, rect.right, rect.top, kind in _COMMENTS)
        finally:
            raw.FPDFPage_CloseAnnot(annotation)


def _value(form: pdfium.PdfFormEnv, field: Any) -> str:
    """Return what a field shows; a ticked box shows a mark."""
    kind = raw.FPDFAnnot_GetFormFieldType(form.raw, field)
    if kind in (raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON):
        return "[x]" if raw.FPDFAnnot_IsChecked(form.raw, field) else ""
    if kind in (raw.FPDF_FORMFIELD_COMBOBOX, raw.FPDF_FORMFIELD_LISTBOX):
        chosen = [
            _string(raw.FPDFAnnot_GetOptionLabel, form.raw, field, option)
            for option in range(min(raw.FPDFAnnot_GetOptionCount(form.raw, field), 1000))
            if raw.FPDFAnnot_IsOptionSelected(form.raw, field, option)
        ]
        return ", ".join(chosen) or _string(raw.FPDFAnnot_GetFormFieldValue, form.raw, field)
    if kind != raw.FPDF_FORMFIELD_TEXTFIELD or raw.FPDFAnnot_GetFormFieldFlags(form.raw, field) & _PASSWORD:
        return ""
    return _string(raw.FPDFAnnot_GetFormFieldValue, form.raw, field)


def _string(function: Any, *arguments: Any) -> str:
    """Call a PDFium function that fills a buffer with UTF-16."""
    size = min(function(*arguments, None, 0), 2 * _MAX_TEXT)
    if size < 2:
        return ""
    buffer = (raw.FPDF_WCHAR * (size // 2))()
    if function(*arguments, buffer, size) > size:
        return ""
    return bytes(buffer).decode("utf-16-le", "replace").rstrip("\0")
