"""docs/api.md: the names of the package for Python, from their signatures and docstrings."""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import Any

import breadcrumbs
from breadcrumbs.store import Store

INTRO = """# Python

`import breadcrumbs` gives these names; `help(breadcrumbs.merge)` says the same. All else in the
package is its inside ([architecture.md](architecture.md)), and may change.
"""


def page() -> str:
    """Return the page, a section for each public name."""
    public = {f"breadcrumbs.{name}": getattr(breadcrumbs, name) for name in breadcrumbs.__all__}
    public["breadcrumbs.store.Store"] = Store
    parts = [INTRO]
    for name, value in sorted(public.items(), key=lambda item: item[0].lower()):
        if callable(value):
            parts.append(_section(name, value))
    return "\n".join(parts)


def _section(name: str, value: Any) -> str:
    if inspect.isclass(value) and issubclass(value, Exception):
        return f"## {name}\n\n{prose(inspect.getdoc(value) or '')}\n"
    text = f"## {name}\n\n{_signature(name, value)}\n{prose(inspect.getdoc(value) or '')}\n"
    if inspect.isclass(value):
        for method, found in _methods(value).items():
            found = getattr(found, "__func__", found)
            if not method.startswith("_") and inspect.isfunction(found):
                short = f"{name.rpartition('.')[2]}.{method}"
                said = prose(inspect.getdoc(found) or "")
                text += f"\n### {short}\n\n{_signature(short, found)}\n{said}\n"
    return text


def _methods(value: type) -> dict[str, Any]:
    """Return what a class has of its own and from bases of this package, in this order."""
    bases = [kind for kind in value.__mro__ if kind.__module__.startswith("breadcrumbs.")]
    found: dict[str, Any] = {}
    for kind in bases:
        found |= {name: one for name, one in vars(kind).items() if name not in found}
    return found


def _signature(name: str, value: Any) -> str:
    """Return what is written to call it, an argument a line where they are many."""
    try:
        signature = inspect.signature(value)
    except ValueError:
        return ""
    given = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    words = []
    for at, p in enumerate(given):
        first = at == 0 or given[at - 1].kind is not p.kind
        if p.kind is p.KEYWORD_ONLY and first and not any(w.startswith("*") for w in words):
            words.append("*")
        words.append(_parameter(p))
    returns = signature.return_annotation
    end = "" if returns is signature.empty else f" -> {str(returns).strip(chr(39))}"
    line = f"{name}({', '.join(words)}){end}"
    if len(line) > 88:
        line = f"{name}(\n" + "".join(f"    {word},\n" for word in words) + f"){end}"
    return f"```python\n{line}\n```\n"


def _parameter(p: inspect.Parameter) -> str:
    stars = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
    kind = "" if p.annotation is p.empty else f": {str(p.annotation).replace('opening.', '')}"
    if p.default is p.empty:
        return f"{stars}{p.name}{kind}"
    default = "..." if callable(p.default) else repr(p.default)
    return f"{stars}{p.name}{kind} = {default}"


def prose(text: str) -> str:
    """Return a docstring as Markdown: examples fenced, and a point for each argument."""
    done = []
    for block in re.split(r"\n{2,}", text):
        if block.lstrip().startswith(">>>"):
            done.append(f"```python\n{textwrap.dedent(block)}\n```")
        elif block.startswith("    "):
            done.append(f"```text\n{textwrap.dedent(block)}\n```")
        else:
            done.append("\n".join(_points(block.replace("``", "`").replace("::", ":"))))
    return "\n\n".join(done)


def _points(block: str) -> list[str]:
    """Return the lines of a paragraph; those that begin with names and a colon are points."""
    lines, inside = [], False
    for line in block.splitlines():
        begins = re.match(r"([a-z_]+(?:, [a-z_]+)*): ", line)
        if begins:
            names = begins[1].split(", ")
            marked = ", ".join(f"`{name}`" for name in names)
            lines.append(f"* {marked}: {line[begins.end() :]}")
        else:
            lines.append(f"  {line.strip()}" if inside else line)
        inside = inside or bool(begins)
    for at in range(1, len(lines)):
        if lines[at].startswith("* ") and not lines[at - 1].startswith(("* ", "  ")):
            lines[at - 1] += "\n"  # a list is a paragraph of its own
    return lines
