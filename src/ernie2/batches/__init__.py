"""Instances → packed batches: stages, states, packs."""
