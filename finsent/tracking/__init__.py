"""Experiment tracking: one seam."""
