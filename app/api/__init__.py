"""HTTP in, HTTP out; no logic lives in this package."""
