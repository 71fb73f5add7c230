"""Checkpoints → scores: a pre-trained encoder fine-tuned and measured on labelled data."""
