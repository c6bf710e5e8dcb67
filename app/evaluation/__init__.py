"""Evaluation and tuning on judged sets: measures, comparisons, learned weights, reports."""
