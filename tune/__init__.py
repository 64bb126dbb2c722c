"""Hyper-parameter sweeps: the search, and what its results say."""
