"""Two pre-training tasks in a separate package; the entry points in pyproject.toml announce them."""
