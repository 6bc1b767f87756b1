"""Configurations in mergekit's format, and small models that they merge."""
