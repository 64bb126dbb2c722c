"""The behavior suite: cases in YAML, and their runner."""
