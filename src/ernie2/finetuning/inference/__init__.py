"""Predictions of a fine-tuned model for texts without labels."""
