"""The command line, one file a command; all printing is here."""

from breadcrumbs.cli.group import main

__all__ = ["main"]
