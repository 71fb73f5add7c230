"""Files → labelled data: the sets of the paper as a declared table, and files of users' own; no tensors, no models."""
