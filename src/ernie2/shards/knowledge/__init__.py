"""Words, phrases and entities of a text, found by annotators and mined from the corpus."""
