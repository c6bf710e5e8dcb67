"""The query log and what people say of the results; from both, judgements."""
