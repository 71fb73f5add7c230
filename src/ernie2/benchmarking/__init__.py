"""A recipe's real stream → how fast it trains here: the step, what feeds it, and Hugging Face on the same instances."""
