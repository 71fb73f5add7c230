"""A recipe's real stream → how fast it trains here: the step, and what feeds it."""
