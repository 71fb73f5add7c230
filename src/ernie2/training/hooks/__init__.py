"""Hooks: built-in ones that every run has, and those of users."""
