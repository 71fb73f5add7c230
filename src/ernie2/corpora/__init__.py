"""Text → documents: readers for the common formats, and sentence boundaries."""
