"""Batch scoring: files of texts in, the same files with labels out."""
