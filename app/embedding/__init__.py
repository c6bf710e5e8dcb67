"""Encoder: texts to vectors with ONNX Runtime."""

import os

# ONNX Runtime for Linux keeps a device id in the home folder and sends usage events to its maker unless this is set
# before it is imported. Nothing about a private network's documents may leave it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
