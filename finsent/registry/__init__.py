"""Published model versions and their aliases."""
