"""What `scripts/plot.py` and `scripts/report.py` make of runs."""
