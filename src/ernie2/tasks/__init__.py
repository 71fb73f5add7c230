"""Shards → instances: one file per pre-training task, and the registry that finds them by name."""

from ernie2.tasks.base import find, known, register

__all__ = ["find", "known", "register"]
