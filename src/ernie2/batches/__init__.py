"""Instances → packed batches: stages, data streams, packs."""
