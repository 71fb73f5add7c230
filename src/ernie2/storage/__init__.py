"""File access: atomic writes, locks, and readers of lines and table rows. All other packages write files through it."""
