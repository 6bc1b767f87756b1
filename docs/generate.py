"""Write the pages that come from declarations: `python -m docs.generate` (`--check` in CI).

docs/methods.md from the table of methods, docs/cli.md from the commands, and the table of methods
in the README between its two marks.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from breadcrumbs import show
from breadcrumbs.cli import main as program
from breadcrumbs.methods import METHODS

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- methods: generated -->", "<!-- end of methods -->"
MADE = "<!-- Made by `python -m docs.generate`; edit the declarations instead. -->\n"


def methods_page() -> str:
    """Return docs/methods.md."""
    parts = [MADE, "# Methods\n"]
    for method in METHODS.values():
        facts = show.method_mapping(method)
        parts.append(f"## {method.name}\n\n{method.summary[0].upper()}{method.summary[1:]}.\n")
        parts.append(f"    merged = {method.formula}\n")
        if facts["parameters"]:
            rows = [
                f"| `{name}` | {p['default'] or ''} | {p['range']} | {_cell(p['help'])} |"
                for name, p in facts["parameters"].items()
            ]
            head = "| parameter | default | range | meaning |\n|---|---|---|---|\n"
            parts.append(head + "\n".join(rows) + "\n")
        needs = f"Needs {method.needs}. " if method.statistics else ""
        parts.append(f"{needs}{method.paper}. {method.notes}".strip() + "\n")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def methods_table() -> str:
    """Return the README's table of methods."""
    rows = [
        f"| `{method.name}` | {method.summary} | {method.paper.rpartition('arXiv')[2]} |".replace(
            "| :", "| arXiv:"
        )
        for method in METHODS.values()
    ]
    return "\n".join(["| method | what it does | paper |", "|---|---|---|", *rows])


def cli_page() -> str:
    """Return docs/cli.md."""
    parts = [MADE, "# Command line\n"]
    context = click.Context(program, info_name="breadcrumbs")
    context.max_content_width = 100
    parts.append(_block(program.get_help(context)))
    for name, command in sorted(program.commands.items()):
        mine = click.Context(command, info_name=name, parent=context)
        mine.max_content_width = 100
        parts.append(f"## breadcrumbs {name}\n")
        parts.append(_block(command.get_help(mine)))
    return "\n".join(parts)


def _block(text: str) -> str:
    lines = (line.rstrip() for line in text.splitlines())
    return "```text\n" + "\n".join(lines) + "\n```\n"


def readme() -> str:
    """Return the README with its table of methods renewed."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{methods_table()}\n{END}{after}"


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` return 1 if one is not up to date."""
    stale = []
    pages = {HERE / "methods.md": methods_page, HERE / "cli.md": cli_page, README: readme}
    for path, make in pages.items():
        text = make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(path.name)
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
    if stale and "--check" in arguments:
        print(f"not up to date: {', '.join(stale)}. Run `python -m docs.generate`.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
