"""Adoption: take over classifiers from elsewhere."""
