"""Groups of commands whose help has heads."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import click


class Grouped(click.Group):
    """A group that lists its commands under heads, with whole summaries.

    heads: head -> names, in the order of the help.
    """

    heads: Mapping[str, Collection[str]] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        named = [name for names in self.heads.values() for name in names]
        return [*named, *sorted(set(self.commands) - set(named))]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        names = self.list_commands(ctx)
        width = max(map(len, names))
        others = [name for name in names if not any(name in head for head in self.heads.values())]
        for head, mine in {**self.heads, "Commands": others}.items():
            rows = []
            for name in mine:
                found = self.get_command(ctx, name)
                if found is not None and not found.hidden:
                    rows.append((name.ljust(width), found.get_short_help_str(1000)))
            if rows:
                with formatter.section(head):
                    formatter.write_dl(rows)
