"""Export a model to graphs that compute faster, behind a parity gate."""
