"""The HTTP API: the application, its operations, and how requests are read and answered."""
