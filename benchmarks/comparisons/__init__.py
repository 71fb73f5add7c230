"""What scripts compare training with: Hugging Face on the same instances, and our own step without an optimisation."""
