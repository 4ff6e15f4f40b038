"""Results: their models, their schema and their tables."""
