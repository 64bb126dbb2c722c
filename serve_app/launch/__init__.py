"""Start a service: its ports, its HAProxy, its deployment, and the wait until it answers."""
