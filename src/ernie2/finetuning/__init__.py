"""Checkpoints and labelled data → scores: a pre-trained encoder fine-tuned, and measured to the official metrics."""
