"""Symbolic links in a folder from somebody else: what lies outside must not be read into what a user publishes."""

from __future__ import annotations

from pathlib import Path


def outside_target(file: Path) -> Path | None:
    """What `file` leads to where that lies outside its folder; None for a file of the folder.

    The cache of the Hugging Face Hub is one folder in this sense: `snapshots/REVISION/…` links to `blobs/…` beside it.
    """
    target, folder = file.resolve(), file.parent.resolve()
    if target.is_relative_to(folder):
        return None
    for parent in (folder, *folder.parents):
        if parent.parent.name == "snapshots" and target.is_relative_to(parent.parent.parent / "blobs"):
            return None
    return target
