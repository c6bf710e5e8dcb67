"""Gateway: identity, roles, rate limits, admission, audit log, feature flags."""
