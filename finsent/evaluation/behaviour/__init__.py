"""The behaviour suite: cases in YAML, and their runner."""
