"""Selection of the backend: as configured, or the fastest by measurement."""
