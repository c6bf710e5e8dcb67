"""Downloads for this machine: OpenSearch's parts, a JDK, embedding models."""
