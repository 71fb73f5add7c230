"""Fine-tune checkpoints on labelled data, score them with the official metrics, and predict."""
