"""Financial sentiment: from a raw labelled file to a published model."""
