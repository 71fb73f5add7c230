"""Documents become annotated, tokenised shards."""
