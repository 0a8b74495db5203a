"""Benchmarks: `python -m bench`. Each prints ratios of two rates taken in one run on one machine, never a verdict."""
