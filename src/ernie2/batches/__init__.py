"""Instances → packed batches: stages, lanes, packs."""
