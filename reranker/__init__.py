"""Cross-encoders: scorer, server, training. Imports nothing of `app`."""

import os

# ONNX Runtime for Linux keeps a device id in the home folder and sends usage events to its maker unless this is set
# before it is imported. Nothing about a private network's documents may leave it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# scoring runs on ONNX Runtime's threads; BLAS threads would only spin between small products
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
