"""Exports: a model as graphs for faster backends, behind a parity gate."""
