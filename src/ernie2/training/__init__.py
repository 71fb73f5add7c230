"""Losses → checkpoints: the optimiser, the step, held-out evaluation, records and the loop."""
