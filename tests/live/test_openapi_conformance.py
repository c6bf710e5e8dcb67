"""The running service against its own OpenAPI document: schemathesis sends what fits it and what does not."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from app.api.factory import ENDPOINTS
from app.api.openapi import document, operation_id

pytestmark = pytest.mark.live

SCHEMA = schemathesis.openapi.from_dict(document(ENDPOINTS))
# what a schema can't say (a page past the candidates, a model of another name, a file of no known type) is refused
NOT_PROMISED = [CHECKS.get_one("positive_data_acceptance")]
# a form has texts only: what schemathesis takes for a number arrives as one
IN_FORMS = [CHECKS.get_one("negative_data_rejection")]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fitting", "unfitting"])
@pytest.mark.parametrize("name", [operation_id(endpoint) for endpoint in ENDPOINTS if endpoint.tag is not None])
def test_every_call_keeps_its_promise(name: str, mode: GenerationMode, braid_url: str) -> None:
    operation = SCHEMA.find_operation_by_id(name)
    if mode is GenerationMode.NEGATIVE and not operation.body and not operation.path_parameters:
        return  # a call without parameters has no wrong ones

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: schemathesis.Case) -> None:
        form = "multipart" in str(case.media_type)
        excluded = NOT_PROMISED + (IN_FORMS if form else [])
        case.call_and_validate(base_url=braid_url, timeout=60, excluded_checks=excluded)

    send()
