"""Feature flags through OpenFeature, with our own provider over the rules of `flag_file`."""

from __future__ import annotations

import itertools
import threading
from typing import NoReturn

from cachetools import TTLCache
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import TypeMismatchError
from openfeature.flag_evaluation import FlagResolutionDetails, Reason
from openfeature.provider import AbstractProvider, Metadata
from openfeature.provider.no_op_provider import NoOpProvider

from app.config.service import FlagSettings
from app.features import Features
from app.gateway.flag_file import FLAGS, FlagSet, Watcher, read_usable, shipped
from app.store.filters import Scope

_KEPT, _KEPT_S = 4096, 1.0
_domains = itertools.count()
_NOBODY = NoOpProvider()


def check_flags(flags: FlagSettings) -> None:
    """Raise if the flag file is unusable, before the start.

    Raises:
        ConfigurationError: ``BRAID_FLAGS_FILE`` is missing or invalid.
    """
    if flags.file is not None:
        read_usable(flags.file)


def context_of(tenant: str, subject: str | None) -> EvaluationContext:
    """Return the attributes of a caller for rules; the key keeps a caller in its share of a percentage."""
    return EvaluationContext(f"{tenant}/{subject or ''}", {"tenant": tenant})


class Flags:
    """Feature flags by caller. One instance per process (open it after forking, close it at the end); thread-safe."""

    def __init__(self, flags: FlagSettings) -> None:
        """Read the flags, and follow their changes.

        Raises:
            ConfigurationError: the configured file is missing or invalid.
        """
        self._lock = threading.Lock()
        self._memo: TTLCache[tuple[str, str | None], Features] = TTLCache(_KEPT, _KEPT_S)
        self.current = shipped()
        self._domain = f"braid-{next(_domains)}"
        self._watcher = Watcher(flags.file, self._apply) if flags.file is not None else None
        self.source = f"the file {flags.file}" if self._watcher else "shipped with Braid"
        """Source of the flags, for the command line."""
        api.set_provider_and_wait(_Provider(self), self._domain)
        self._client = api.get_client(self._domain)

    def features(self, scope: Scope) -> Features:
        """Return the features of the caller of `scope`; at most a second old, and never older than a change that was
        seen.
        """
        key = (scope.tenant, scope.subject)
        # evaluated under the lock, so that all flags of one caller are from one set
        with self._lock:
            found: Features | None = self._memo.get(key)
            if found is None:
                found = self._memo[key] = self._evaluate(scope)
            return found

    def warnings(self) -> list[str]:
        """Return problems of the flags for ``/readyz``, without callers, tenants, files or addresses."""
        warning = self._watcher.warning if self._watcher else None
        return [] if warning is None else [warning]

    def close(self) -> None:
        """Stop following the file. `features` then returns the defaults."""
        if self._watcher:
            self._watcher.close()
        api.set_provider_and_wait(_NOBODY, self._domain)

    def _apply(self, flags: FlagSet) -> None:
        with self._lock:
            self.current = flags
            self._memo.clear()

    def _evaluate(self, scope: Scope) -> Features:
        context = context_of(scope.tenant, scope.subject)
        values = {
            name: self._client.get_boolean_value(name, flag.default, context)
            for name, flag in self.current.flags.items()
        }
        return Features(**values, variants={name: "on" if values[name] else "off" for name in FLAGS})


class _Provider(AbstractProvider):
    """OpenFeature provider of `owner`; our flags are booleans only."""

    def __init__(self, owner: Flags) -> None:
        super().__init__()
        self._owner = owner

    def get_metadata(self) -> Metadata:
        return Metadata(name="braid")

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        context = evaluation_context or EvaluationContext()
        flag = self._owner.current.flags[flag_key]
        value, rule = flag.decide(flag_key, str(context.attributes.get("tenant")), context.targeting_key or "")
        matched = Reason.DEFAULT if rule is None else Reason.TARGETING_MATCH if rule.percent is None else Reason.SPLIT
        reason = matched if flag.rules else Reason.STATIC
        return FlagResolutionDetails(value, variant="on" if value else "off", reason=reason)

    def _refuse(self, flag_key: str, default_value: object, evaluation_context: object = None) -> NoReturn:
        raise TypeMismatchError(f"{flag_key} is true or false")

    resolve_string_details = resolve_integer_details = resolve_float_details = resolve_object_details = _refuse
