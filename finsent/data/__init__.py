"""From labelled files to dataset versions."""
