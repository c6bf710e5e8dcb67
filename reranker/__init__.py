"""Scores (query, passage) pairs with a cross-encoder: in the process of the service, or as a server of its own."""

import os

# ONNX Runtime for Linux keeps a device id in the home folder and sends usage events to its maker unless this is set
# before it is imported: a private network's documents are nobody else's business, nor is how they are used
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
