"""Feature flags through OpenFeature: flagd's evaluator in this process, fed by `flag_sources`.

The provider that comes with flagd's package is not used, its parts are: its file watcher takes an emptied file for no
flags at all, does not see a file whose time is older than the one before, and logs a traceback each poll while a file
is broken; its gRPC watcher ends for good on a configuration that is no object, and leaves timers behind.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from cachetools import TTLCache
from openfeature import api
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import TypeMismatchError
from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType
from openfeature.provider import AbstractProvider, Metadata
from openfeature.provider.no_op_provider import NoOpProvider

from app import telemetry
from app.config import Settings
from app.features import Features
from app.gateway.flag_file import FLAGS, FlagSet, context_of, read_usable, resolve, shipped
from app.gateway.flag_sources import Apply, FileSource, Source
from app.store.filters import Scope

_log = logging.getLogger("braid.flags")
_KEPT, _KEPT_S = 4096, 1.0
_domains = itertools.count()
_NOBODY = NoOpProvider()


def check_flags(settings: Settings) -> None:
    """Refuse a start with a file of flags that can't be used.

    Raises:
        ConfigurationError: ``BRAID_FLAGS_FILE`` is missing or broken.
    """
    if settings.flags_file is not None and settings.flagd is None:
        read_usable(settings.flags_file)


class Flags:
    """What is on for whom. One instance a process (open it after forking), closed at its end; thread-safe."""

    def __init__(self, settings: Settings) -> None:
        """Read the flags, and follow their changes from now on; waits at most two seconds for a flagd server.

        Raises:
            ConfigurationError: the file that is named is missing or broken.
        """
        self._lock = threading.Lock()
        self._memo: TTLCache[tuple[str, str | None], Features] = TTLCache(_KEPT, _KEPT_S)
        self._failing: set[str] = set()
        self._attributes: Mapping[str, Any] = {}
        self._flags = shipped()
        self._targeted = False
        self._provider = _Evaluator(self._flags.evaluator())
        self._domain = f"braid-{next(_domains)}"
        self._source = _source(settings, self._apply)
        self._source.open()
        api.set_provider_and_wait(self._provider, self._domain)
        self._client = api.get_client(self._domain)

    @property
    def source(self) -> str:
        """Where the flags come from, for the command line."""
        return self._source.name

    @property
    def current(self) -> FlagSet:
        """The flags in force."""
        return self._flags

    def features(self, scope: Scope) -> Features:
        """What is on for the caller of `scope`; at most a second old, and never older than a change that was seen."""
        # without targeting everybody has the same
        key = (scope.tenant, scope.subject) if self._targeted else ("", None)
        # evaluated under the lock: all flags of one caller are then of one set
        with self._lock:
            found: Features | None = self._memo.get(key)
            if found is None:
                found = self._memo[key] = self._evaluate(scope)
            return found

    def warnings(self) -> list[str]:
        """What is wrong with the flags now, for ``/readyz``; says nothing of callers, tenants, files or addresses."""
        with self._lock:
            failing = sorted(self._failing)
        found = [self._source.warning()]
        found += [f"the feature flag {name} fails for some callers: its default counts for them" for name in failing]
        return [text for text in found if text is not None]

    def close(self) -> None:
        """Stop following. `features` answers with the defaults from then on."""
        self._source.close()
        api.set_provider_and_wait(_NOBODY, self._domain)

    def _apply(self, flags: FlagSet, attributes: Mapping[str, Any]) -> None:
        core = flags.evaluator()
        with self._lock:
            if flags.definitions != self._flags.definitions:
                _log.info("feature flags: others are in force")
            self._flags, self._attributes, self._targeted = flags, attributes, flags.targeted
            self._provider.core = core
            self._failing.clear()
            self._memo.clear()

    def _evaluate(self, scope: Scope) -> Features:
        context = context_of(scope.tenant, scope.subject)
        if self._attributes:
            # what the server adds never stands for who is asking
            context = EvaluationContext(context.targeting_key, {**self._attributes, **context.attributes})
        values: dict[str, bool] = {}
        variants: dict[str, str] = {}
        for name in FLAGS:
            found = self._client.get_boolean_details(name, self._flags.defaults[name], context)
            if found.error_code is not None:
                self._failed(name, found.error_message)
            values[name] = found.value
            # a disabled flag, or one that fails, has none
            variants[name] = found.variant or ("on" if found.value else "off")
        return Features(**values, variants=variants)

    def _failed(self, name: str, message: str | None) -> None:
        telemetry.FLAG_ERRORS.labels(name).inc()
        if name not in self._failing:
            _log.warning("the feature flag %s fails for some callers: %s; its default counts for them", name, message)
            self._failing.add(name)


def _source(settings: Settings, apply: Apply) -> Source:
    if settings.flagd is not None:
        from app.gateway.flag_server import ServerSource  # gRPC costs 12 MB, and is loaded after forking

        return ServerSource(settings.flagd, apply)
    if settings.flags_file is not None:
        return FileSource(settings.flags_file, apply)
    return Source(apply)


class _Evaluator(AbstractProvider):
    """An OpenFeature provider around flagd's evaluator; our flags are true or false, and nothing else."""

    def __init__(self, core: FlagdCore) -> None:
        super().__init__()
        self.core = core

    def get_metadata(self) -> Metadata:
        return Metadata(name="braid")

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        return resolve(self.core, flag_key, default_value, evaluation_context)

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> NoReturn:
        raise TypeMismatchError(f"{flag_key} is true or false")

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> NoReturn:
        raise TypeMismatchError(f"{flag_key} is true or false")

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> NoReturn:
        raise TypeMismatchError(f"{flag_key} is true or false")

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        evaluation_context: EvaluationContext | None = None,
    ) -> NoReturn:
        raise TypeMismatchError(f"{flag_key} is true or false")
