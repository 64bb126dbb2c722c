"""The part of a replica that sends requests to a canary."""
