"""One thin module a job: `python -m ray_jobs.NAME CONFIG.yaml key=value ...`."""
