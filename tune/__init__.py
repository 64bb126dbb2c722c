"""Hyper-parameter sweeps: their space, their records, and what the results say."""
