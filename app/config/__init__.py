"""Settings: one frozen object in sections, parsed once; nothing else in the code reads the environment.

Each field is an environment variable: ``BRAID_``, the section's prefix and the field's name. Variables of other
software (``OPENSEARCH_HOME``, ``JAVA_HOME``, ``XDG_CACHE_HOME``) keep their names. `SETTINGS` is the table of all.
"""

from __future__ import annotations

import difflib
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, get_args

from pydantic import AliasChoices, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from app.addresses import mask_passwords
from app.config.retrieval import (
    CacheSettings,
    EmbeddingSettings,
    IndexSettings,
    IngestSettings,
    LlmSettings,
    OpenSearchSettings,
    PassageSettings,
    RedisSettings,
    RerankerSettings,
    RerankSettings,
    SearchSettings,
)
from app.config.section import Section, affects_answers
from app.config.service import (
    AccessSettings,
    ClientSettings,
    FlagSettings,
    JwtSettings,
    LimitSettings,
    MachineSettings,
    QueryLogSettings,
    ServerSettings,
)
from app.errors import ConfigurationError


@dataclass(frozen=True)
class Settings:
    """All settings of the service, the command line and the embedded node; `Settings()` reads the environment."""

    opensearch: OpenSearchSettings = field(default_factory=OpenSearchSettings)
    index: IndexSettings = field(default_factory=IndexSettings)
    redis: RedisSettings = field(default_factory=RedisSettings)
    embedding: EmbeddingSettings = field(default_factory=EmbeddingSettings)
    passage: PassageSettings = field(default_factory=PassageSettings)
    ingest: IngestSettings = field(default_factory=IngestSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    reranker: RerankerSettings = field(default_factory=RerankerSettings)
    rerank: RerankSettings = field(default_factory=RerankSettings)
    llm: LlmSettings = field(default_factory=LlmSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    flags: FlagSettings = field(default_factory=FlagSettings)
    query_log: QueryLogSettings = field(default_factory=QueryLogSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    access: AccessSettings = field(default_factory=AccessSettings)
    jwt: JwtSettings = field(default_factory=JwtSettings)
    client: ClientSettings = field(default_factory=ClientSettings)
    machine: MachineSettings = field(default_factory=MachineSettings)

    def with_values(self, **values: object) -> Settings:
        """Return a copy with other values, by the settings' names; they are not validated.

        Raises:
            KeyError: there is no setting of that name.
        """
        changed: dict[str, dict[str, object]] = defaultdict(dict)
        for name, value in values.items():
            changed[SETTINGS[name].section][SETTINGS[name].field] = value
        sections: dict[str, Any] = {name: getattr(self, name).model_copy(update=new) for name, new in changed.items()}
        return replace(self, **sections)

    def answer_values(self) -> dict[str, object]:
        """Return the values that answers depend on, as JSON, by the settings' names."""
        plain = {name: getattr(self, name).model_dump(mode="json") for name in SECTIONS}
        return {s.name: plain[s.section][s.field] for s in SETTINGS.values() if s.affects_answers}

    def as_environment(self) -> dict[str, str]:
        """Return the settings as variables, for a child process that must have exactly these."""
        found = {}
        for setting in SETTINGS.values():
            value = getattr(getattr(self, setting.section), setting.field)
            if value is not None:
                found[setting.variables[0]] = str(value.get_secret_value() if isinstance(value, SecretStr) else value)
        return found


SECTIONS: dict[str, type[Section]] = {section.name: section.default_factory for section in fields(Settings)}  # type: ignore[misc]


@dataclass(frozen=True)
class Setting:
    """One setting: its place, its variables (the first is its own, the others are also read) and its declaration."""

    section: str
    field: str
    variables: tuple[str, ...]
    info: FieldInfo

    @property
    def name(self) -> str:
        """The variable in lower case without ``BRAID_``: the name of an override."""
        return self.variables[0].removeprefix("BRAID_").lower()

    @property
    def is_secret(self) -> bool:
        return SecretStr in get_args(self.info.annotation)

    @property
    def affects_answers(self) -> bool:
        return affects_answers(self.info)


def _settings_table() -> Iterator[Setting]:
    for section, kind in SECTIONS.items():
        for name, info in kind.model_fields.items():
            alias = info.validation_alias
            variables = alias.choices if isinstance(alias, AliasChoices) else [alias] if alias else []
            own = f"{kind.model_config['env_prefix']}{name}".upper()
            yield Setting(section, name, tuple(str(variable) for variable in variables) or (own,), info)


SETTINGS: Mapping[str, Setting] = {setting.name: setting for setting in _settings_table()}
"""All settings by name, in the order of their sections."""
REMOVED = {
    "BRAID_FLAGD": "was removed, Braid no longer asks a flagd server: unset it, and write the flags to the file of "
    "BRAID_FLAGS_FILE (docs/flags.md)"
}
_OTHERS = ("BRAID_TEST_", "BRAID_RERANKER_")
"""Prefixes of variables of the tests and of the reranker's own server."""
_SERVICE_LINK = re.compile(r"_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_\w+)?)$")
"""Endings of the variables that Kubernetes sets for the addresses of services in the same namespace."""


def _check_names(environment: Mapping[str, str]) -> None:
    """Reject variables that look like settings but are not: a misspelt key would leave the service open.

    Raises:
        ConfigurationError: names each one and the nearest setting.
    """
    known = {variable for setting in SETTINGS.values() for variable in setting.variables}
    problems = []
    for name in sorted(environment):
        if not name.startswith("BRAID_") or name in known or name.startswith(_OTHERS) or _SERVICE_LINK.search(name):
            continue
        if name in REMOVED:
            problems.append(f"{name} {REMOVED[name]}")
            continue
        near = difflib.get_close_matches(name, known, n=1)
        problems.append(f"{name} is not a setting" + (f": did you mean {near[0]}?" if near else ""))
    if problems:
        raise ConfigurationError("; ".join(problems) + " (all settings: docs/configuration.md)")


def load_settings(**overrides: object) -> Settings:
    """Parse the environment; `overrides` by the settings' names (None: not given) take precedence.

    Raises:
        ConfigurationError: names each invalid variable, its value unless it is secret, and the reason; or each variable
            that is not a setting.
        KeyError: an override's name is not a setting.
    """
    _check_names(os.environ)
    given: dict[str, dict[str, object]] = defaultdict(dict)
    for name, value in overrides.items():
        setting = SETTINGS[name]
        if value is not None:
            given[setting.section][_input_name(setting)] = value
    sections: dict[str, Any] = {}
    problems: list[str] = []
    for name, kind in SECTIONS.items():
        try:
            sections[name] = kind(**given[name])  # type: ignore[arg-type]
        except ValidationError as error:
            problems += _explain(name, error)
            cause = error
    if problems:
        raise ConfigurationError("; ".join(problems)) from cause
    return Settings(**sections)


def _input_name(setting: Setting) -> str:
    """Return the name by which pydantic takes and reports a value: the first alias, else the field's."""
    return setting.variables[0] if setting.info.validation_alias else setting.field


def _explain(section: str, error: ValidationError) -> Iterator[str]:
    by_input = {_input_name(setting): setting for setting in SETTINGS.values() if setting.section == section}
    for problem in error.errors(include_url=False):
        if not problem["loc"]:
            yield f"settings: {problem['msg']}"
            continue
        setting, value = by_input[str(problem["loc"][0])], problem["input"]
        shown = "" if setting.is_secret else f"={mask_passwords(value) if isinstance(value, str) else value!r}"
        yield f"{setting.variables[0]}{shown}: {problem['msg']}"


@cache
def settings() -> Settings:
    """Return the process-wide settings, parsed at the first call."""
    return load_settings()
