"""The parts of `gpu_run.py`. Each records every measurement as one line of results.jsonl."""
