"""The records of a run become one page of HTML that needs nothing else."""
