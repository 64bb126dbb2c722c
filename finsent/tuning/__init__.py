"""Settings of hyperparameter search; `tune/` is what uses them."""
