"""Calls of real clients and what each must return: tests run them, docs/clients.md lists them."""

from tests.integration.clients import generated, hub, tei, vllm  # noqa: F401 # they add their calls
