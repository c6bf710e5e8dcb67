"""Bearer tokens (JWT) of an identity provider, verified by PyJWT against the provider's published keys."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jwt

from app.config.service import JwtSettings
from app.errors import NotAuthenticated
from app.gateway.caller import MAX_GROUPS, USER_PREFIX, Caller, group_problem, make_caller, name_problem, tenant_problem
from app.gateway.roles import Role
from app.gateway.signing_keys import SigningKeys

_REQUIRED = ["exp", "iss", "aud", "sub"]
_SAYS: Mapping[type[jwt.PyJWTError], str] = MappingProxyType(
    {
        jwt.ExpiredSignatureError: "the token has expired",
        jwt.ImmatureSignatureError: "the token is not valid yet",
        jwt.InvalidAudienceError: "the token is for another audience than BRAID_JWT_AUDIENCE",
        jwt.InvalidIssuerError: "the token is of another issuer than BRAID_JWT_ISSUER",
        jwt.MissingRequiredClaimError: f"the token lacks a claim: {', '.join(_REQUIRED)} are required",
    }
)
"""Messages for tokens with a valid signature; others are only called invalid."""


class TokenVerifier:
    """Turns tokens into callers. One instance per process, thread-safe."""

    def __init__(self, settings: JwtSettings) -> None:
        """Create the verifier; the provider is called with the first token. `settings` has its URL, issuer and
        audience.
        """
        self._settings = settings
        self._algorithms = frozenset(settings.algorithm_names)
        self._keys = SigningKeys(str(settings.jwks_url))
        self._jwt = jwt.PyJWT(options={"enforce_minimum_key_length": True})

    def verify(self, token: str) -> Caller:
        """Return the caller of a token.

        The algorithm must be one of `BRAID_JWT_ALGORITHMS` and match the published key; references to keys in the
        token's own header (`jku`, `x5u`, `jwk`) are ignored.

        Raises:
            NotAuthenticated: the token is forged, expired, for others, or has unusable claims; it is not repeated.
            SigningKeysUnavailable: the provider's keys are unavailable.
        """
        algorithm, kid = self._header(token)
        key = self._keys.find(kid, algorithm)
        if key is None:
            raise NotAuthenticated("the token is signed with a key that its issuer does not publish")
        try:
            claims = self._jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=self._settings.leeway_s,
                options={"require": _REQUIRED},
            )
        except jwt.PyJWTError as error:
            raise NotAuthenticated(_SAYS.get(type(error), "the token is not valid")) from error
        except (ValueError, OverflowError) as error:  # an invalid time
            raise NotAuthenticated("the token is not valid") from error
        return self._caller(claims)

    def close(self) -> None:
        """Close the connection to the provider."""
        self._keys.close()

    def _header(self, token: str) -> tuple[str, str]:
        """Return algorithm and key id, as the token claims them."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise NotAuthenticated("the token is not a JWT") from error
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise NotAuthenticated("the token is not signed with one of BRAID_JWT_ALGORITHMS")
        if not isinstance(kid, str) or not kid:
            raise NotAuthenticated("the token does not name the key that it is signed with (kid)")
        return algorithm, kid

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        settings = self._settings
        tenant = _claim(claims, settings.tenant_claim)
        if (problem := tenant_problem(tenant)) is not None:
            raise _unusable(settings.tenant_claim, problem)
        subject = claims["sub"]
        if (problem := name_problem(subject)) is not None:
            raise _unusable("sub", problem)
        groups = _texts(claims, settings.groups_claim)
        if len(groups) > MAX_GROUPS:
            raise _unusable(settings.groups_claim, f"more than {MAX_GROUPS} groups")
        for group in groups:
            if (problem := group_problem(group)) is not None:
                raise _unusable(settings.groups_claim, problem)
        named = _texts(claims, settings.roles_claim)
        return make_caller(
            tenant=str(tenant),
            groups=groups,
            # roles of other applications are ignored
            roles=frozenset(role for role in Role if role in named),
            subject=f"{USER_PREFIX}{subject}",
            name=f"{USER_PREFIX}{subject}",
        )


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim by its name, or else by a path (``realm_access.roles``)."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def _texts(claims: Mapping[str, Any], name: str) -> list[str]:
    """Return a claim that is a list of texts; empty if it is absent."""
    found = _claim(claims, name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise _unusable(name, "it must be a list of texts")
    return found


def _unusable(claim: str, problem: str) -> NotAuthenticated:
    return NotAuthenticated(f"the token's claim {claim!r} is unusable: {problem}")
