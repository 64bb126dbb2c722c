"""One thin module per job: `python -m ray_jobs.NAME CONFIG.yaml key=value ...`."""
