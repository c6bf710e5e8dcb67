"""Sources of documents: folders, and rows of JSON Lines files."""
