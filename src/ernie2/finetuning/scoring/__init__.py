"""Predictions → figures: the official metrics, over several runs, beside what the paper reports."""
