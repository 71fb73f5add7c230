"""What the command line and Python users call; `ernie2` itself names them, and imports each when it is asked for."""
