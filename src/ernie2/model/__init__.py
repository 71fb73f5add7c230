"""Packed batches → losses: one encoder shared by all tasks, one head per task (paper, section 3)."""
