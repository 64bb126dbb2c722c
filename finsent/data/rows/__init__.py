"""Rows: cleaned, labeled, keyed, and assigned to a split."""
