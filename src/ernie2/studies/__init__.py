"""Learning methods side by side: which runs a study needs, and the one record they leave; `analysis` reads it."""
