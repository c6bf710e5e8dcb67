"""Runtime that encoder and reranker share: ONNX sessions, batching, tokenising."""
