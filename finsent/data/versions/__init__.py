"""Dataset versions: the manifest, the report, and the difference of two versions."""
