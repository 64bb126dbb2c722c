"""Experiment tracking by Weights & Biases."""
