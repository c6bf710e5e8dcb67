"""Answers from passages: context, prompt, language model, citations, abstention."""
