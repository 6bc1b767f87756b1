"""What stands beside the weights of a merged folder: config, tokenizer, recipe and model card."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import beside, composite, token_ids, tokenizer_files
from breadcrumbs.checkpoint.beside import RECIPE
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.engine.digests import FileDigests
from breadcrumbs.errors import RecipeError, counted, sentence
from breadcrumbs.machine import human
from breadcrumbs.merging import chat, inputs, licences, said
from breadcrumbs.merging import front as front_matter
from breadcrumbs.merging.published import Names, resolved
from breadcrumbs.merging.report import Report, said_of_parts
from breadcrumbs.plan import Plan
from breadcrumbs.plan.recipe import SAME, to_yaml
from breadcrumbs.version import __version__

#: What configs call the number of layers.
_LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
#: Configs in a config that are of the model of the text.
_OF_TEXT = ("text_config", "llm_config", "language_config", "decoder", "encoder")
_SHOWN = 50


def add(
    folder: Path,
    plan: Plan,
    report: Report,
    digests: FileDigests,
    names: Names,
    choice: str = "",
) -> None:
    """Write into ``folder`` what a merged model needs besides its weights.

    names: what its inputs are called there. choice: a section of the model card on how its models
    were chosen.
    """
    other = tokenizer_of(plan)
    (folder / RECIPE).write_text(recipe_text(plan, digests, names), encoding="utf-8")
    text = card(plan, report, digests, names, choice)
    (folder / "README.md").write_text(text, encoding="utf-8", errors="replace")
    beside.copy(plan.target, folder, other, quantised=plan.recipe.dtype == SAME)
    layout = composite.of(plan.target)
    chat.write(folder, chat.chosen(plan))
    for place in layout.places:
        config = folder / place.folder / "config.json"
        if config.exists():
            _change(config, plan)
    if plan.words is not None:
        token_ids.move(folder, plan.words.moved)
    if other is not None and other.folder is not None:
        for place in ("", *layout.folders):
            token_ids.take(folder / place, other.folder / place)
    words = plan.words
    if words is not None and words.ids:
        tokenizer_files.extend(folder, words.ids, words.added, words.pieces)


def tokenizer_of(plan: Plan) -> Checkpoint | None:
    """Return the model whose tokenizer is written and not the target's; None if that is.

    RecipeError if it is asked for and has none, or cannot get the tokens that it lacks.
    """
    wanted, words = plan.recipe.tokenizer, plan.words
    if words is not None:
        source = words.tokenizer or plan.target
        tokenizer_files.check(source.folder, words.pieces, source.label)
    if wanted is None:
        return words.tokenizer if words is not None else None
    found = next((c for c in plan.origins if wanted in (c.label, c.repo)), None)
    own = found and beside.with_own_folder(found)
    if own is None or not beside.has_tokenizer(own):
        raise RecipeError(
            f"recipe: tokenizer: {wanted} has no tokenizer files beside its weights. Give a model"
            " that has them."
        )
    return own


def _change(config: Path, plan: Plan) -> None:
    """Say the new dtype and the new layers in a transformers config, under its own keys."""
    try:
        data = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return
    dtype, words = plan.recipe.dtype, plan.words
    changed = dtype not in (None, SAME) and _replace_dtypes(data, dtype)
    if plan.target.layers and isinstance(data, dict):
        changed |= _replace_layers(data, plan.target.layers)
    if plan.target.untied and isinstance(data, dict):
        changed |= _untie(data)
    if words is not None and isinstance(data, dict):
        changed |= _replace_rows(data, words.rows)
    if changed:
        config.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _replace_rows(data: dict[str, Any], rows: int) -> bool:
    """Set the number of tokens in a config and those in it; return whether it had it."""
    found = False
    for key, value in data.items():
        if key == "vocab_size" and isinstance(value, int):
            data[key], found = rows, True
        elif key in _OF_TEXT and isinstance(value, dict):
            found |= _replace_rows(value, rows)
    return found


def _replace_layers(data: dict[str, Any], layers: Sequence[int]) -> bool:
    """Set the number of layers of a config, and what it lists for each; return whether it had it.

    In the config itself, or else in those in it.
    """
    key = next((key for key in _LAYER_KEYS if isinstance(data.get(key), int)), None)
    if key is None:
        inner = [v for k, v in data.items() if k.endswith("_config") and isinstance(v, dict)]
        return any([_replace_layers(value, layers) for value in inner])
    before, data[key] = data[key], len(layers)
    for name, value in data.items():
        if "layer" in name and isinstance(value, list) and len(value) == before > max(layers):
            data[name] = [value[i] for i in layers]
    return True


def untie(config: Path) -> None:
    """Say in a transformers config that embeddings and head are two tensors."""
    with suppress(ValueError, RecursionError):
        data = json.loads(config.read_text(encoding="utf-8"))
        if isinstance(data, dict) and _untie(data):
            config.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _untie(data: dict[str, Any]) -> bool:
    """Say that embeddings and head are two tensors, in a config and in those in it that tie."""
    before = json.dumps(data)
    for inner in data.values():
        if isinstance(inner, dict) and inner.get("tie_word_embeddings"):
            inner["tie_word_embeddings"] = False
    data["tie_word_embeddings"] = False
    if data.get("scale_decoder_outputs"):  # of T5, which is true of a tied head alone
        data["scale_decoder_outputs"] = False
    return json.dumps(data) != before


def _replace_dtypes(data: Any, dtype: str | None) -> bool:
    """Set the dtypes of a config and of the configs in it; return whether there were any."""
    found = False
    for key, value in data.items() if isinstance(data, dict) else ():
        if key in ("dtype", "torch_dtype"):
            data[key], found = dtype, True
        elif key.endswith("_config") and key != "quantization_config":
            found |= _replace_dtypes(value, dtype)
    return found


def recipe_text(plan: Plan, digests: FileDigests, names: Names) -> str:
    """Return the recipe that lies beside a model: its inputs by their names there, and hashes."""
    found = tuple(one for one in inputs.described(plan, digests, names) if one["files"])
    made = replace(resolved(plan, names), inputs=found, made_by=inputs.MADE_BY)
    return to_yaml(made, complete=True)


def card(
    plan: Plan,
    report: Report,
    digests: FileDigests,
    names: Names,
    choice: str = "",
) -> str:
    """Return the model card: front matter for the hub, the recipe, and what was kept."""
    import yaml

    parts = said.of_all(plan.origins)
    matter = front_matter.matter(plan, parts, bool(report.adapter))
    front = yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)
    rows = "\n".join(
        f"| {cell(row.name)} | {row.weight:g} | {row.fraction:.2%} |" for row in report.models
    )
    files = "\n".join(
        f"| {cell(names.of(source.label))} | {cell(source.shown_file(path))} |"
        f" {digests.sizes[path]} | `{digests.digests[path]}` |"
        for source in plan.inputs
        for path in source.own_files
    )
    notes = "".join(f"\n* {_line(note, names)}" for note in report.notes)
    notes += "\n" * bool(report.notes)
    shares = ", ".join(f"{value:.2%} are {what}" for what, value in report.shares.items())
    copied = ", ".join(f"{number} {reason}" for reason, number in report.copied.items())
    emptied = ", ".join(cell(name) for name in report.emptied[:_SHOWN]) or "none"
    if len(report.emptied) > _SHOWN:
        emptied += f" and {len(report.emptied) - _SHOWN} more"
    return f"""---
{front.strip()}
---

# Merged {"adapter" if report.adapter else "model"}

Made with Breadcrumbs {__version__} by the method
`{plan.method.name}`: {plan.method.summary}.

    {plan.method.formula}

{plan.method.paper}.

## What was kept

| model | weight | entries of its task vector kept |
|---|---|---|
{rows}

{_merged(report)}\
{"; copied from the base: " + copied if copied else ""}. The update has norm {report.norm:.6g}\
{report.length and f", {report.length}"}.
Tensors of which a model kept nothing: {emptied}.\
{f" Of the weights that changed, {shares}." if shares else ""}\
{f" By part: {cell(said_of_parts(report.parts))}." if report.parts else ""}\
{f" This is an {report.adapter}." if report.adapter else ""}\
{"" if report.lost is None else f" Lost to FP8: {report.lost:.0%} of the step."}
{notes}
{_warnings(report, names)}{choice and choice + chr(10)}{_sources(plan, parts, names)}## Recipe

{_again(plan, report)}

```yaml
{recipe_text(plan, digests, names).strip()}
```

## Inputs

| model | file | bytes | BLAKE3 (of a task file: its own hash) |
|---|---|---|---|
{files}

Read {human(report.bytes_read)}, wrote {human(report.bytes_written)}.
"""


def _merged(report: Report) -> str:
    were = "was" if report.tensors == 1 else "were"
    weights = counted(report.entries, "weight")
    return f"{report.merged} of {counted(report.tensors, 'tensor')} {were} merged ({weights})"


def _again(plan: Plan, report: Report) -> str:
    """Return how a merge is made again."""
    if report.adapter:
        return f"`breadcrumbs merge {RECIPE} --to lora -o FOLDER` makes the adapter again."
    if any(not source.files for source in plan.inputs):
        return f"`{RECIPE}` beside this card says how; some models were only in memory."
    return (
        f"`{RECIPE}` beside this card reproduces the weights, bit for bit: `breadcrumbs reproduce"
        " FOLDER`\nmerges again and compares. It has the hashes of the inputs."
    )


def _sources(plan: Plan, parts: dict[str, said.Card], names: Names) -> str:
    """Return the section of a card on where the models come from and their licences.

    Empty if nothing of it is known.
    """
    ids = front_matter.hub_ids(plan, parts)
    if not any(ids.values()) and not any(card.license for card in parts.values()):
        return ""
    rows = "".join(
        f"| {cell(names.of(label))} | {cell(' + '.join(ids.get(label, ())) or 'not known')} |"
        f" {cell(card.license_name or card.license or licences.UNKNOWN)} |\n"
        for label, card in parts.items()
    )
    shown = {names.of(label): card for label, card in parts.items()}
    lines = licences.section(shown, licences.of(shown))
    text = "".join(f"* {cell(line)}\n" for line in lines)
    return f"""## Models and licences

| model | on the hub | licence |
|---|---|---|
{rows}
{text + chr(10) if text else ""}"""


def _line(text: str, names: Names) -> str:
    return cell(sentence(names.clean(text)))


def _warnings(report: Report, names: Names) -> str:
    """Return the section of a card that says what was warned of; empty if nothing was."""
    lines = [f"* {_line(warning, names)}\n" for warning in report.warnings]
    return "".join(["## Warnings\n\n", *lines, "\n"]) if lines else ""


def cell(text: str) -> str:
    """Return text as it may stand in a cell of a Markdown table: one line, nothing special."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return re.sub(r"([\\`*|<>\[\]])", r"\\\1", text)
