"""Benchmarks: ratios against a peer or a limit, measured in one run on one machine.

Run one from a checkout by `python -m benchmarks.NAME [CONFIG.yaml ...] [key=value ...]`. Variants
run in turn. The ratios compare medians of the rounds. `rows=N` is short for `bench.rows=N`.
"""
