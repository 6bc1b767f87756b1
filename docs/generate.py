"""Write the pages that come from declarations: `python -m docs.generate` (`--check` in CI).

docs/methods.md from the table of methods, docs/cli.md from the commands, docs/api.md from the names
for Python; between two marks each the times of all methods in docs/performance.md, those of
docs/store.md, the example of docs/task-file.md, and what experiments/results hold in docs/paper.md,
docs/table.md and docs/choosing.md.
src/breadcrumbs/merging/typed.py, the parameters as type checkers know them, is made too.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import click
import ml_dtypes
import numpy as np
from docs import names, typed
from experiments.paper import pages as figures
from experiments.paper.tables import markdown

from breadcrumbs.cli.group import main as program
from breadcrumbs.methods.parameters import Parameter
from breadcrumbs.methods.registry import FINISHES, METHODS
from breadcrumbs.methods.transforms.low_rank import LOW_RANK
from breadcrumbs.methods.transforms.triplets import TRIPLETS

HERE = Path(__file__).parent
METHODS_INTRO = """Any `alpha`, weights of models and parameters by tensor go with each.
[choosing.md](choosing.md) says which method when, [differences.md](differences.md) where results
differ from other programs on purpose; `breadcrumbs methods NAME` explains one.
"""
MADE = "<!-- Made by `python -m docs.generate`; edit the declarations instead. -->\n"


def methods_page() -> str:
    """Return docs/methods.md."""
    parts = [MADE, "# Methods\n", METHODS_INTRO, methods_table() + "\n"]
    for method in METHODS.values():
        parts.append(f"## {method.name}\n\n{method.summary[0].upper()}{method.summary[1:]}.\n")
        parts.append(f"    merged = {method.formula}\n")
        parts += _parameters(method.parameters)
        needs = f"Needs {method.needs}. " if method.statistics else ""
        parts.append(f"{needs}{method.paper}. {method.notes}".strip() + "\n")
    after = (
        "After any method: `METHOD+FINISH`, or `--finish` ([choosing.md](choosing.md#finishes))."
    )
    parts.append(f"# Finishes\n\n{after}\n")
    for finish in FINISHES.values():
        parts.append(f"## {finish.name}\n\n{finish.summary[0].upper()}{finish.summary[1:]}.\n")
        parts.append(f"    M = {finish.formula}\n")
        parts += _parameters(finish.parameters)
        parts.append(f"{finish.paper}.\n")
    parts.append("# Transforms that no method has\n\n## low_rank\n")
    parts.append(
        "Keep the leading singular triplets of each matrix of a task vector: `low_rank+sum`.\n"
    )
    parts += _parameters(LOW_RANK.parameters)
    parts.append(
        "## triplets\n\nKeep the singular triplets of each matrix that are named: `triplets+sum`,"
        " as `breadcrumbs learn --as adarank` writes it (AdaRank, arXiv:2503.22178).\n"
    )
    parts += _parameters(TRIPLETS.parameters)
    return "\n".join(parts)


def _parameters(declared: Mapping[str, Parameter]) -> list[str]:
    """Return a table of parameters, if there are any."""
    if not declared:
        return []
    rows = [
        f"| `{name}` | {'' if p.default is None else p.default} | {p.range} | {_cell(p.help)} |"
        for name, p in declared.items()
    ]
    head = "| parameter | default | range | meaning |\n|---|---|---|---|\n"
    return [head + "\n".join(rows) + "\n"]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def methods_table() -> str:
    """Return a table of all methods."""
    rows = []
    for method in METHODS.values():
        paper = method.paper.rpartition("arXiv")[2]
        paper = f"arXiv{paper}" if paper.startswith(":") else paper
        rows.append(f"| [`{method.name}`](#{method.name}) | {method.summary} | {paper} |")
    return "\n".join(["| method | what it does | paper |", "|---|---|---|", *rows])


_ABOUT_CLI = """\
* **Completion.** `breadcrumbs completion bash >> ~/.bashrc` (or `zsh >> ~/.zshrc`, or
  `fish > ~/.config/fish/completions/breadcrumbs.fish`), then open a new shell: the Tab key
  completes commands, options, and values such as methods, parameters of the chosen method,
  dtypes, and tasks of a store.
* **Quiet.** `-q` leaves out progress, notes, warnings and reports, ours and those of libraries.
  Errors are printed.
* **Pipes.** Results go to stdout, everything else to stderr. What is piped is never wrapped,
  whatever the width. On a terminal `COLUMNS` and `NO_COLOR` are heeded; where a table does not fit,
  rows are printed as lines.
* **Ctrl-C.** The first one ends cleanly, so that `--resume` can go on; the second one stops at
  once.
* **Exit codes.** 0 done, 1 a problem with the input, 2 wrong usage, 130 interrupted.
"""


def cli_page() -> str:
    """Return docs/cli.md."""
    parts = [MADE, "# Command line\n", _ABOUT_CLI]
    context = click.Context(program, info_name="breadcrumbs", **program.context_settings)
    parts.append(_block(program.get_help(context)))
    _commands(program, context, parts)
    return "\n".join(parts)


def _commands(group: click.Group, context: click.Context, parts: list[str]) -> None:
    """Add the help of the commands of a group, and of those in them."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        mine = click.Context(command, info_name=name, parent=context)
        mine.max_content_width = 100
        parts.append(f"## {mine.command_path}\n")
        parts.append(_block(command.get_help(mine)))
        if isinstance(command, click.Group):
            _commands(command, mine, parts)


def _block(text: str) -> str:
    lines = (line.rstrip() for line in text.splitlines())
    return "```text\n" + "\n".join(lines) + "\n```\n"


def times_table() -> str:
    """Return the times of all methods, as `benchmarks.methods` measured them."""
    path = HERE.parent / "benchmarks" / "results" / "methods.json"
    head = "| method | models, weights | seconds | ns | memory | compared with |\n"
    parts = [head + "|---|---|---|---|---|---|"]
    for name, row in json.loads(path.read_text())["methods"].items():
        other = ""
        if "mergekit_seconds" in row:
            times = row["times_faster_than_mergekit"]
            other = f"mergekit {row['mergekit_seconds']:.1f} s, {times:.1f} times"
        if "svds_seconds" in row:
            other = f"its SVDs alone {row['svds_seconds']:.1f} s: {row['times_the_svds']:.2f} times"
        weights = f"{row['models']}, {row['parameters'] / 1e6:.0f}M"
        each, memory = row["ns_per_entry_and_model"], row["breadcrumbs_peak_mb"]
        each = f"{each:.1f}" if each < 100 else f"{each:,.0f}"
        seconds = f"{row['breadcrumbs_seconds']:.1f}"
        parts.append(f"| `{name}` | {weights} | {seconds} | {each} | {memory:.0f} MB | {other} |")
    return "\n".join(parts)


def store_table() -> str:
    """Return the times and sizes of a growing store, as `benchmarks.store` measured them."""
    found = json.loads((HERE.parent / "benchmarks" / "results" / "store.json").read_text())
    times = {
        "add": "`store add` of a task file",
        "remove": "`store remove`",
        "merge": "`store merge`",
        "merge_all": "`breadcrumbs merge` of all task files",
        "mergekit": "mergekit, all checkpoints",
    }
    sizes = {"tasks_mb": "task files", "sums_mb": "running sum"}
    head = ["tasks", *times.values(), *sizes.values(), "checkpoints"]
    rows = []
    for row in found["rows"]:
        cells = [f"{row[f'{key}_seconds']:.1f} s" for key in times]
        cells += [f"{row[key]:,.0f} MB" for key in sizes]
        whole = row["tasks"] * row["model_mb"]
        rows.append([str(row["tasks"]), *cells, f"{whole:,.0f} MB"])
    return markdown(head, rows)


def grams_table() -> str:
    """Return the processor seconds of stores with Grams, as `benchmarks.grams` measured them."""
    found = json.loads((HERE.parent / "benchmarks" / "results" / "grams.json").read_text())
    times = {
        "merge_grams": "`store merge` from Grams",
        "merge_all": "`breadcrumbs merge -m wudi` of all task files",
        "add_grams": "`store add`",
        "add": "without Grams",
        "remove_grams": "`store remove`",
        "remove": "without Grams",
        "grams_on": "`store grams on`",
    }
    sizes = {"tasks_mb": "task files", "grams_mb": "Grams"}
    rows = []
    for row in found["rows"]:
        cells = [f"{row[f'{key}_cpu_seconds']:.1f} s" for key in times]
        cells += [f"{row[key]:,.0f} MB" for key in sizes]
        rows.append([str(row["tasks"]), *cells, f"{row['weights_that_differ']:,}"])
    return markdown(["tasks", *times.values(), *sizes.values(), "weights that differ"], rows)


def store_page() -> str:
    """Return docs/store.md with the tables of what was measured."""
    text = (HERE / "store.md").read_text(encoding="utf-8")
    return _filled(_filled(text, "times", store_table()), "grams", grams_table())


def task_example() -> str:
    """Return the bytes of a task file."""
    from breadcrumbs import tasks

    base = np.ones(8, ml_dtypes.bfloat16)
    tuned = base.copy()
    tuned[[1, 6]] = 1.5, 2
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.safetensors"
        tasks.pack({"w": base}, {"w": tuned}, path, transform="none", name="ft")
        data = path.read_bytes()
    rows = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        rows.append(f"{at:04x}  {row.hex(' '):47}  {text}")
    return "```text\n" + "\n".join(rows) + "\n```"


def between(path: Path, name: str, make: Callable[[], str]) -> str:
    """Return the page with what ``make`` returns between the marks of that name."""
    return _filled(path.read_text(encoding="utf-8"), name, make())


def _filled(text: str, name: str, made: str) -> str:
    begin, end = f"<!-- {name}: generated -->", f"<!-- end of {name} -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{made}\n{end}{after}"


def paper_page() -> str:
    """Return docs/paper.md with the tables of what was measured."""
    text = (HERE / "paper.md").read_text(encoding="utf-8")
    for name in figures.NAMES:
        text = _filled(text, name, figures.filled(name))
    return text


def table_page() -> str:
    """Return docs/table.md with what was measured of all methods without data."""
    text = (HERE / "table.md").read_text(encoding="utf-8")
    for name in figures.TABLES:
        text = _filled(text, name, figures.frontier(name))
    return text


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` return 1 if one is not up to date."""
    stale = []
    performance, task_file, choosing, language = (
        HERE / f"{n}.md" for n in ("performance", "task-file", "choosing", "language-models")
    )
    pages = {
        HERE / "methods.md": methods_page,
        HERE / "cli.md": cli_page,
        HERE / "paper.md": paper_page,
        HERE / "table.md": table_page,
        HERE / "api.md": lambda: f"{MADE}\n{names.page()}",
        HERE.parent / "src/breadcrumbs/merging/typed.py": typed.source,
        performance: lambda: between(performance, "methods", times_table),
        choosing: lambda: between(choosing, "leaders", lambda: figures.frontier("leaders")),
        HERE / "store.md": store_page,
        language: lambda: between(language, "lm6", lambda: figures.suite_of("lm6")),
        task_file: lambda: between(task_file, "example", task_example),
    }
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
