"""Private and fragile APIs of libraries: one module per library and area, each use with its reason.

A test per module (tests/unit/test_adapter_NAME.py) fails where an upgrade changes such an API.
"""
