"""HTTP interface: parse a request, call one use case, render its result."""
