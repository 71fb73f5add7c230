"""What the paper reports in Table 7, as data: dev accuracy in percent of three learning methods."""

from __future__ import annotations

SETS = ("mnli", "sst2", "mrpc")
"""The data sets it scores on, dev; `mnli` is its matched half."""
PAPER_TABLE_7 = {
    "continual learning": (77.3, 86.4, 82.5),
    "multi-task learning": (78.7, 87.5, 83.0),
    "continual multi-task learning": (79.0, 87.8, 84.0),
}
"""Method → dev accuracy in percent on each of `SETS`."""
PAPER_WORDS = (
    "The paper’s figures are of a base-size model (12 layers × 768) trained on 10 % of the authors’ corpus with 50,000 "
    "iterations a task; each is the mean of five fine-tuning runs, and no spread is given."
)
"""What must stand beside the figures wherever they are shown."""
