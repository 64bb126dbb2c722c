"""Adoption of classifiers from elsewhere."""
