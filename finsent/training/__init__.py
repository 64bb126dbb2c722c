"""The loop, its batches, and the ways to start it."""
