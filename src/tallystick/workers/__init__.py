"""Loops that call services, and the supervision that keeps them running."""
