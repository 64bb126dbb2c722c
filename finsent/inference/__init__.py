"""The engine, which computes label probabilities of texts."""
