"""The engine: texts to probabilities."""
