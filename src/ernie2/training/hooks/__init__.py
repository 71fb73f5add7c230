"""What a run does beside its steps, each a `Hook`: those every run has, and those a user adds."""
