"""Write reports of runs, fine-tuning results and studies as self-contained HTML pages."""
