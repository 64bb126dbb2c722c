"""Adapters: one module per area of a library whose private or fragile API finsent uses."""
