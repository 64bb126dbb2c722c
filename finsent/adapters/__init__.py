"""Private or fragile APIs of libraries: one module per library, each use with its reason."""
