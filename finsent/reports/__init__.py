"""Layout, style and pictures that all reports share."""
