"""Groups of commands whose help has heads, and help that is readable on narrow terminals."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence

import click

from breadcrumbs.errors import suggestion

#: Columns of a terminal below which click would let lines run over.
LEAST = 52


class Formatter(click.HelpFormatter):
    """Help as wide as the terminal, also where that has fewer columns than click reckons with."""

    def __init__(
        self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None
    ):
        columns = shutil.get_terminal_size().columns
        if width is None and columns < LEAST:
            width = max(columns - 2, LEAST // 2)
        super().__init__(indent_increment, width, max_width)

    def write_dl(
        self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        if self.width < LEAST:
            col_max = max(15, self.width // 3)
        super().write_dl(rows, col_max, col_spacing)


class Context(click.Context):
    """A context whose help is formatted by `Formatter`."""

    formatter_class = Formatter


class Command(click.Command):
    """A command whose help is formatted by `Formatter`."""

    context_class = Context


class Grouped(click.Group):
    """A group that lists its commands under heads, with whole summaries.

    heads: head -> names, in the order of the help.
    """

    context_class = Context
    heads: Mapping[str, Collection[str]] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        named = [name for names in self.heads.values() for name in names]
        return [*named, *sorted(set(self.commands) - set(named))]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            names = self.list_commands(ctx)
            ctx.fail(f"No such command {args[0]!r}.{suggestion(args[0], names)}")
        return super().resolve_command(ctx, args)

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
