"""The parts of `gpu_run.py`: each measures one thing and notes every measurement as a line of results.jsonl."""
