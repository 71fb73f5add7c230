"""`python -m ernie2` runs the command `ernie2`."""

from __future__ import annotations

from ernie2.cli import main

if __name__ == "__main__":
    main()
