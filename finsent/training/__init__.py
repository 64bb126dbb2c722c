"""Training: the recipe, the training run, and what starts it."""
