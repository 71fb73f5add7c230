"""Packed batches → losses: one encoder shared by all tasks, a head a task (paper, section 3)."""
