"""Financial sentiment: from a raw labeled file to a published model."""
