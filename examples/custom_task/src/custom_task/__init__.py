"""Two pre-training tasks outside of ernie2; the entry points in pyproject.toml make them known."""
