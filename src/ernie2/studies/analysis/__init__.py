"""The record of a study → its figures, verdicts and tables: neither torch nor run folders, so a record is enough."""
