"""Texts without labels → what a fine-tuned model says of them."""
