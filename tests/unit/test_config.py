from __future__ import annotations

from pathlib import Path

import pytest

from app.config import SETTINGS, Settings, load_settings
from app.errors import ConfigurationError

NO_ANSWER_DEPENDS_ON = """
    host port workers threads concurrency queue worker_max_requests cors_origins audit_log url redis_url model_aliases
    max_body_bytes data_dir cache_dir java_home java_options opensearch_home opensearch_version knn_lib opensearch_url
    opensearch_user
    opensearch_password opensearch_ca_file opensearch_timeout_s api_key keys_secret rate_limit_key rate_limit_tenant
    jwt_jwks_url jwt_issuer jwt_audience jwt_algorithms jwt_tenant_claim jwt_groups_claim jwt_roles_claim
    jwt_leeway_s query_log query_log_key query_log_days reranker_key embedding_key llm_api_key flags_file
    tenant timeout_ms mcp response_cache_ttl_s embedding_cache_entries cache_ttl_s llm_concurrency
    chat_sources
    """.split()  # noqa: SIM905 - a list of words
"""Written out once more: a setting that is left out of the cache's key by mistake serves answers made with another."""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BRAID_PORT", "eighty"),
        ("BRAID_ALPHA", "1.5"),
        ("BRAID_PASSAGE_TOKENS", "50"),
        ("BRAID_OPENSEARCH_URL", "localhost:9200"),
        ("BRAID_VECTOR_VARIANT", "hnsw"),
    ],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert name in caught.value.detail
    assert value in caught.value.detail


def test_overlap_must_be_less_than_half() -> None:
    with pytest.raises(ConfigurationError, match="BRAID_PASSAGE_OVERLAP"):
        load_settings(passage_overlap=100, passage_tokens=200)


def test_secrets_stay_out_of_messages_and_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAID_API_KEY", "hunter2")
    assert "hunter2" not in repr(load_settings())


def test_a_child_process_gets_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(port=1234, api_key="k", opensearch_url="http://127.0.0.1:9200", alpha=0.25)
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


def test_the_precision_is_part_of_the_models_name() -> None:
    assert load_settings(embedding_precision="int8").embedding.id == "all-MiniLM-L6-v2-int8"
    assert load_settings(embedding_precision="fp32").embedding.id == "all-MiniLM-L6-v2"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("BRAID_OPENSERCH_URL", "did you mean BRAID_OPENSEARCH_URL"),
        ("BRAID_API_KEYY", "did you mean BRAID_API_KEY"),
        ("BRAID_ZZZZ", "BRAID_ZZZZ is not a setting"),
        ("BRAID_FLAGD", "BRAID_FLAGS_FILE"),
    ],
)
def test_a_variable_that_is_no_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, said: str) -> None:
    monkeypatch.setenv(name, "a-secret-value")
    with pytest.raises(ConfigurationError, match=said) as caught:
        load_settings()
    assert "a-secret-value" not in caught.value.detail


@pytest.mark.parametrize("name", ["BRAID_API_SERVICE_HOST", "BRAID_API_PORT_8080_TCP_ADDR", "BRAID_RERANKER_PORT"])
def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "8081")
    load_settings()


def test_an_override_goes_before_every_variable_of_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", "/java/theirs")
    assert load_settings().machine.java_home == Path("/java/theirs")
    monkeypatch.setenv("BRAID_JAVA_HOME", "/java/ours")
    assert load_settings().machine.java_home == Path("/java/ours")
    assert load_settings(java_home=Path("/java/given")).machine.java_home == Path("/java/given")


def test_an_override_that_is_no_setting_is_a_defect() -> None:
    with pytest.raises(KeyError, match="opensearch_uri"):
        load_settings(opensearch_uri="http://127.0.0.1:9200")


def test_other_values_leave_the_rest_as_it_was() -> None:
    settings = load_settings(opensearch_timeout_s=3, opensearch_user="u")
    changed = settings.with_values(opensearch_user=None, alpha=0.5)
    assert (changed.opensearch.user, changed.opensearch.timeout_s, changed.search.alpha) == (None, 3, 0.5)
    assert settings.opensearch.user == "u"
    assert changed.with_values(opensearch_user="u", alpha=None) == settings


def test_answers_depend_on_all_settings_but_these() -> None:
    assert {name for name, setting in SETTINGS.items() if not setting.affects_answers} == set(NO_ANSWER_DEPENDS_ON)
    assert load_settings().answer_values().keys() == SETTINGS.keys() - set(NO_ANSWER_DEPENDS_ON)


def test_each_setting_is_described_and_has_a_variable_of_its_own() -> None:
    variables = [variable for setting in SETTINGS.values() for variable in setting.variables]
    assert len(set(variables)) == len(variables)
    assert all(setting.info.description for setting in SETTINGS.values())
