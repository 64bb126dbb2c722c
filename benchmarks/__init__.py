"""Benchmarks: ratios against a peer or a limit, all from one run on one machine.

Run one from a checkout by `python -m benchmarks.NAME [CONFIG.yaml ...] [key=value ...]`. Variants
run in turn, and medians of the rounds are compared. `rows=N` is short for `bench.rows=N`.
"""
