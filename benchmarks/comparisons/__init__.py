"""Code for comparisons of training steps: Hugging Face on the same instances, and our step without an optimisation."""
