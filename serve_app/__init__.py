"""The service: a Ray Serve graph around the engine, its HTTP API, and its page."""
