"""Start a Ray cluster on this machine, and submit jobs to any Ray cluster."""
