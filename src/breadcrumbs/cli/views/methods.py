"""Methods and their parameters on the screen."""

from __future__ import annotations

from typing import Any

from breadcrumbs.cli.console import ruled, terminal
from breadcrumbs.methods.registry import FINISHES, Method


def methods(methods: list[Method]) -> None:
    """Print one line for each method."""
    table = ruled("method", "what it does", "models", "passes", right=(3,))
    table.unbroken = (0,)
    for method in methods:
        needs = method.statistics
        summary = f"{method.summary} (needs: {needs.kind} statistics)" if needs else method.summary
        table.add_row(method.name, summary, method.number, str(method.passes))
    console = terminal()
    console.print(table)
    ordered = ", ".join(method.name for method in methods if method.order == "matters")
    console.print(
        "All methods need a base; only those with statistics need data. Passes: how often"
        " each weight"
        f" is read. The order of the models matters only for {ordered or 'none'}."
        " `breadcrumbs methods NAME` explains one: formula, parameters, paper.\n"
        "Your own pairs: --transform and --aggregate, or TRANSFORM+AGGREGATE.\n"
        f"Finishes, of any of these: --finish {' or '.join(FINISHES)}, or METHOD+FINISH."
    )


def method_mapping(method: Method) -> dict[str, Any]:
    """Return a method as plain data."""
    return {
        "name": method.name,
        "summary": method.summary,
        "formula": method.formula,
        "paper": method.paper,
        "notes": method.notes,
        "needs": method.needs,
        "statistics": method.statistics.kind if method.statistics else None,
        "passes": method.passes,
        "order": method.order,
        "parameters": {
            name: {
                "default": None if p.default is None else str(p.default),
                "range": p.range,
                "help": p.help,
            }
            for name, p in method.parameters.items()
        },
    }


def method(method: Method) -> None:
    """Print all about one method."""
    facts = method_mapping(method)
    console = terminal()
    console.print(f"{method.name}: {method.summary}\n")
    console.print(f"    merged = {method.formula}\n")
    table = ruled("parameter", "default", "range", "meaning")
    for name, p in facts["parameters"].items():
        table.add_row(name, p["default"] or "", p["range"], p["help"])
    if facts["parameters"]:
        console.print(table)
    times = {1: "once", 2: "twice"}.get(facts["passes"], f"at most {facts['passes']} times")
    console.print(
        f"Needs {facts['needs']}. Reads each weight {times}. The order of models {facts['order']}."
    )
    console.print(f"Paper: {method.paper}.")
    if method.notes:
        console.print(method.notes)
