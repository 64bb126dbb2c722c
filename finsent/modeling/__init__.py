"""Backbones, the classifier and the files of its directory."""
