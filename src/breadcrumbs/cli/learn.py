"""`breadcrumbs learn`."""

from __future__ import annotations

import importlib
from typing import Any

import click

from breadcrumbs.cli.shared import (
    command,
    force_option,
    json_option,
    on_option,
    quiet_option,
    retries_option,
    sync_option,
)


@command()
@click.argument("suite", metavar="SUITE.yaml")
@click.argument("model")
@click.option(
    "--what",
    type=click.Choice(["heads", "blocks", "weights", "router"]),
    default="heads",
    show_default=True,
    help="What to learn. heads: a correction for each task behind the frozen model. blocks: the"
    " weights of one block after the other. weights: the numbers of a recipe. router:"
    " which task a row is of.",
)
@click.option(
    "--as",
    "kind",
    metavar="KIND",
    help="Of heads: affine (default), lowrank:16 (Representation Surgery), head (FT-Classifier),"
    " blocks:16 (SurgeryV2). Of blocks: distill (default), prodistill, regmean, regmean++, lot,"
    " lot++. Of weights: adamerging (default), symerge (heads too), adarank, frank-wolfe. Of a"
    " router: logistic (default).",
)
@click.option(
    "--per",
    type=click.Choice(["tensor", "model"]),
    help="Of weights: one for each model and tensor, or one for each model.",
)
@click.option(
    "-p",
    "--param",
    "params",
    multiple=True,
    metavar="KEY=VALUE",
    help="A number of the kind. Of blocks: steps, rate, alpha, off_diagonal, ridge. Of weights:"
    " steps, rate, batch, temperature, hard, oracle.",
)
@click.option(
    "--heads",
    metavar="FILE",
    help="Of a router: the corrections that answer, instead of the experts.",
)
@click.option("--rows", type=click.IntRange(1), metavar="N", help="Rows of a task. Default: all.")
@click.option(
    "--split",
    type=click.Choice(["validation", "train", "test-inputs"]),
    default="validation",
    show_default=True,
    help="The rows to learn from. What was learned from test inputs is marked transductive.",
)
@click.option(
    "--answers",
    type=click.Choice(["expert", "labels", "none"]),
    default="expert",
    show_default=True,
    help="What is known of a row: what its task's expert answers, its label (head and weights), or"
    " nothing (weights: the entropy of the answers).",
)
@click.option(
    "--expert",
    "experts",
    multiple=True,
    metavar="TASK=MODEL",
    help="The model to learn from, instead of the suite's fine-tuned one. Of a router: the model or"
    " task file that answers.",
)
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only these tasks.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draw.")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    help="Where to write: heads to NAME.safetensors, blocks to a folder or NAME.safetensors,"
    " weights to NAME.yaml.",
)
@click.option("--base", help="The base model, instead of the suite's.")
@click.option("--precision", default="auto", help="float32, bfloat16, or auto (the fastest here).")
@click.option("--device", default="auto", help="cpu, cuda, or auto.")
@on_option
@retries_option
@force_option
@quiet_option
@sync_option
@json_option
def learn(suite: str, model: str, output: str, **options: Any) -> None:
    """Learn from a few rows what makes a merged model better.

    Rows go once through the merged model, which stays as it is, and through the model fine-tuned
    on their task; what turns the first's features into the second's is written for each task. No
    labels are needed. The file serves that model alone (docs/with-data.md).

    \b
    breadcrumbs learn suite.yaml merged --rows 200 -o heads.safetensors
    breadcrumbs learn suite.yaml merged --as lowrank:16 --rows 200 -o surgery.safetensors
    breadcrumbs evaluate suite.yaml merged --heads heads.safetensors

    With --what blocks, the weights of the merged model are learned, one block after the other: what
    each block of the experts gives is the goal. What comes out is an ordinary model, and one
    block of each model is in memory at a time.

    \b
    breadcrumbs learn suite.yaml merged --what blocks --rows 200 -o distilled

    With --what weights, MODEL is a recipe, or a method, which merges the suite's fine-tuned models;
    the weights that make the merged model answer as the experts do become a recipe, which merges
    without data.

    \b
    breadcrumbs learn suite.yaml task_arithmetic --what weights --rows 64 -o learned.yaml
    breadcrumbs merge learned.yaml -o merged

    With --what router, what is learned is which task a row is of, and its answer comes from the
    experts, task files or corrections: nobody has to tell the task.

    \b
    breadcrumbs learn suite.yaml merged --what router --heads heads.safetensors
        -o router.safetensors
    breadcrumbs evaluate suite.yaml merged --router router.safetensors
    """
    if options["per"] and options["what"] != "weights":
        raise click.UsageError("--per is of --what weights")
    what = options["what"]
    if what != "heads" and options["on"] is not None:
        raise click.UsageError("--on is of --what heads, a task a process; all else is one's work")
    if what != "router" and options["heads"] is not None:
        raise click.UsageError("--heads is of --what router")
    if what not in ("blocks", "weights") and options["params"]:
        raise click.UsageError("-p is of --what blocks and weights")
    kind = importlib.import_module(f"breadcrumbs.cli.learning.{what}")
    kind.learn(suite, model, output, options)
