"""Attention within each sequence of a pack: `plan` chooses and runs a kernel; the other modules implement them."""
