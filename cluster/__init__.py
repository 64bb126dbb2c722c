"""Ray clusters for finsent: start one on this machine, and submit jobs to any."""
