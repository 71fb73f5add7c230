"""Statistics and examples of prepared data, for a person to check."""
