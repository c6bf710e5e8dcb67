"""Search as stages that return values: candidates, ranking, page."""
