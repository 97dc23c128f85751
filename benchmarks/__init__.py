"""Where the study's time goes, each row beside a plain loop in the same run: `python -m benchmarks`."""
