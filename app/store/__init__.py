"""OpenSearch client: the only package that knows OpenSearch. Its quirks: README.md."""
