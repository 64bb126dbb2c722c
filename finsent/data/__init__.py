"""From labeled files to dataset versions."""
