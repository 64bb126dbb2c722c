"""Hyperparameter sweeps: search space, search, trials, verification and analysis."""
