"""Read labelled data: the datasets of the paper, declared in YAML, and user files; no tensors, no models."""
