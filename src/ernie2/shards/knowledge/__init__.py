"""Words, phrases and entities of a text, marked by annotators or mined from the corpus."""
