"""Shards → instances: one file per pre-training task, and the registry that finds them by name."""

from ernie2.tasks.base import find_task, known_tasks, register

__all__ = ["find_task", "known_tasks", "register"]
