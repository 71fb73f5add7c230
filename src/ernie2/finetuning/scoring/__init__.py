"""Official metrics of predictions, summarised over seeds and compared with the paper."""
