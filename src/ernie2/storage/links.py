"""Detect symbolic links in downloaded folders that lead outside them: such files must not be copied and published."""

from __future__ import annotations

from pathlib import Path


def external_link_target(file: Path) -> Path | None:
    """Return the target of the link `file` if it is outside its folder, else None.

    The Hugging Face Hub cache counts as one folder: `snapshots/REVISION/…` links to `blobs/…`.
    """
    target, folder = file.resolve(), file.parent.resolve()
    if target.is_relative_to(folder):
        return None
    for parent in (folder, *folder.parents):
        if parent.parent.name == "snapshots" and target.is_relative_to(parent.parent.parent / "blobs"):
            return None
    return target
