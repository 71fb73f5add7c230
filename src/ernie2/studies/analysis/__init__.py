"""Analyse the record of a study: figures, verdicts and tables. Needs neither torch nor the run folders."""
