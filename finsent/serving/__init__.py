"""What the service and its clients share: settings. The service itself is `serve_app`."""
