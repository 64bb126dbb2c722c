"""Ingest: from source files to a dataset version, with Ray Data."""
