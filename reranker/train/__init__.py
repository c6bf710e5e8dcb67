"""Training of rerankers: export, distillation. Needs the extra `train` (torch); serving never imports it."""
