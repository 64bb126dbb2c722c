"""Backbones, the classifier, its directory."""
