"""Looking at shards: what a person can check by eye."""
