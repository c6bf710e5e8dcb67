"""What the access filter compares is stored as it was given: nothing folds it, cuts it or leaves it out."""

from __future__ import annotations

import pytest

from app.access import ACCESS_FIELDS
from app.config import load_settings
from app.store.rendering import VARIANTS, compose, render


@pytest.mark.parametrize("variant", VARIANTS)
def test_tenant_and_readers_are_plain_keywords(variant: str) -> None:
    fields = compose(render(load_settings(), variant, 384))["mappings"]["properties"]
    # ignore_above would make a long name no name, and its document nobody's; a normalizer would make two names one
    assert fields["tenant"] == {"type": "keyword"}
    assert {str(fields[name]) for name in ACCESS_FIELDS} == {str({"type": "keyword"})}
    assert fields["document_id"] == fields["content_hash"] == {"type": "keyword"}


def test_no_pipeline_touches_them() -> None:
    (pipeline,) = render(load_settings(), "faiss-exact", 384).of_kind("ingest pipeline")
    for processor in pipeline.body["processors"]:
        assert set(processor) <= {"fail", "script"}
        (settings,) = processor.values()
        assert not any(name in str(settings) for name in ("acl", "tenant"))
