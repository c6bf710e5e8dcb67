"""The leak test: a model of who may see what, requests of every kind against the real service, and what must hold."""
