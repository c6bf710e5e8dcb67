"""Training: export, distillation. Everything here needs the extra `train` (torch); serving never imports it."""
