"""Learning methods side by side: many runs, one record, and what can be told from it."""
