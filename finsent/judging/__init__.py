"""Models judged on labeled rows: evaluation, comparison, calibration and the champion gate."""
