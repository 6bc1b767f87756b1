"""The commands: one short function each, a call into the library. What they share is here."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from breadcrumbs.cli import interrupts, silence
from breadcrumbs.cli.grouped import Command
from breadcrumbs.errors import BreadcrumbsError, printable

if TYPE_CHECKING:
    from breadcrumbs.evaluate.scoring.settings import Settings

_GO_ON = {
    "merge": " Give --resume to go on.",
    "finetune": " Run it again to go on.",
    "learn": " Run it again to go on.",
    "evaluate": " Run it again to go on; what was scored is kept.",
    "search": " Run it again to go on; what was scored is kept, and with --storage the trials are.",
}

#: Commands that write to URLs, or say themselves why they do not.
_TO_URLS = ("merge",)


class Telling(Command):
    """A command that says what an option of another program is called here."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if any(parameter.name == "params" for parameter in self.params):
                from breadcrumbs.methods import registry, words

                known = {key for method in registry.METHODS.values() for key in method.parameters}
                if hint := words.option(error.option_name, known):
                    raise click.UsageError(f"no option {error.option_name}. {hint}", ctx) from None
            raise


def command(name: str | None = None) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command whose errors are one line on stderr and exit code 1.

    It takes `--quiet`, which its function is given if it has the option itself (`quiet_option`).
    """

    def wrap(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            quiet = kwargs["quiet"] if told else kwargs.pop("quiet")
            try:
                with silence.silent(quiet), interrupts.heeded():
                    if function.__name__ not in _TO_URLS:
                        _refuse_url(kwargs.get("output"))
                    function(*args, **kwargs)
                    _say_what_is_slow()
            except BreadcrumbsError as error:
                click.echo(f"breadcrumbs: {printable(str(error))}", err=True)
                sys.exit(1)
            except KeyboardInterrupt:
                advice = _GO_ON.get(function.__name__, "")
                click.echo(f"breadcrumbs: interrupted.{advice}", err=True)
                sys.exit(interrupts.CODE)
            except OSError as error:  # stdout is full or closed; files raise errors of ours
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115
                if not isinstance(error, BrokenPipeError):
                    what = error.filename or "cannot print"
                    click.echo(f"breadcrumbs: {what}: {error.strerror}.", err=True)
                sys.exit(1)

        made = click.command(name, cls=Telling)(run)
        told = any(parameter.name == "quiet" for parameter in made.params)
        if not told:
            help = "Print no progress, notes or warnings, only the result and errors."
            click.option("-q", "--quiet", is_flag=True, help=help)(made)
        made.params.sort(key=lambda parameter: _LAST.get(parameter.name or "", 0))
        if COMPLETE in os.environ:
            from breadcrumbs.cli import completing

            completing.complete(made)
        return made

    return wrap


#: Set by the shell when it asks how a command goes on.
COMPLETE = "_BREADCRUMBS_COMPLETE"
#: Options that all commands, or many, have: after all others, in this order.
_LAST = {"force": 1, "strict": 2, "no_sync": 3, "verbose": 4, "quiet": 5, "as_json": 6}


def _refuse_url(output: Any) -> None:
    if isinstance(output, str) and "://" in output:
        from breadcrumbs.checkpoint import places

        places.refuse_output(output)


def _say_what_is_slow() -> None:
    if silence.is_on():
        return
    kernels: Any = sys.modules.get("breadcrumbs.kernels")  # not loaded for what needs none
    for line in kernels.unsaid() if kernels else ():
        click.echo(f"note: {printable(line)}", err=True)


def quiet_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add `--quiet` of a command that writes files, given to the function as ``quiet``."""
    help = "Print errors only: no progress, notes, warnings or report."
    return click.option("-q", "--quiet", is_flag=True, help=help)(function)


threads_option = click.option(
    "--threads", type=click.IntRange(1, 1024), help="Threads to use. Default: all cores."
)
max_memory_option = click.option(
    "--max-memory", metavar="SIZE", help="Memory limit, such as 500MB."
)
on_option = click.option(
    "--on",
    metavar="ENGINE",
    help="Where the work is done: processes:N, ray, or ray://HOST:10001 (docs/scale.md).",
)
retries_option = click.option(
    "--retries",
    type=click.IntRange(0),
    default=4,
    show_default=True,
    help="How often work is done again whose process or machine was lost.",
)
workers_option = click.option(
    "--workers", type=click.IntRange(1, 256), help="Processes. Default: all cores."
)
force_option = click.option("--force", is_flag=True, help="Replace the output if it exists.")
plugin_option = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="FILE.py",
    help="A Python file with your own methods.",
)


def json_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add `--json`, given to the function as ``as_json``."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON to stdout, for programs."
    )(function)


def fit_options(
    model: str = "a model", base: str = "the base", default: str | None = "error"
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add `--missing` and `--extra`: a word, or globs as often as they are given.

    default: what the function gets where they are not given.
    """

    def chosen(_: Any, __: Any, given: tuple[str, ...]) -> Any:
        return given or default

    def add(function: Callable[..., None]) -> Callable[..., None]:
        for name, word, who, what in (
            ("--extra", "ignore", base, "ignore them"),
            ("--missing", "base", model, "base: count them as unchanged"),
        ):
            help = (
                f"Tensors that {who} lacks: error (default), {what}, or do so where GLOB matches."
            )
            metavar = f"{word}|GLOB"
            option = click.option(name, multiple=True, callback=chosen, metavar=metavar, help=help)
            function = option(function)
        return function

    return add


def nonfinite_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add `--allow-nonfinite`, alone or with a glob, as often as it is given."""
    return click.option(
        "--allow-nonfinite",
        is_flag=False,
        flag_value="*",
        multiple=True,
        metavar="[GLOB]",
        callback=lambda _, __, given: True if "*" in given else given or False,
        help="Count NaN and infinity as unchanged, in all tensors or in those that match.",
    )(function)


def rename_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add `--rename`, given to the function as rules."""
    return click.option(
        "--rename",
        multiple=True,
        metavar="OLD=NEW",
        help='Rename tensors of models to the base\'s names, such as "model.*=*". Repeatable.',
    )(function)


def sync_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add `--no-sync`, which holds for all that the command writes."""

    @click.option(
        "--no-sync",
        is_flag=True,
        help="Do not wait until the output is on the disk: a power cut may lose it.",
    )
    @functools.wraps(function)
    def run(*args: Any, no_sync: bool, **kwargs: Any) -> None:
        from breadcrumbs.checkpoint import durable

        with durable.syncing(not no_sync):
            function(*args, **kwargs)

    return run


def _scratch(context: click.Context, _: Any, given: str | None) -> None:
    if given is not None:
        from breadcrumbs.checkpoint import mirrors

        before = os.environ.get(mirrors.SCRATCH)
        os.environ[mirrors.SCRATCH] = given  # as worker processes read it too

        @context.call_on_close
        def restore() -> None:
            os.environ.pop(mirrors.SCRATCH)
            if before is not None:
                os.environ[mirrors.SCRATCH] = before


scratch_option = click.option(
    "--scratch",
    metavar="DIR[:SIZE]",
    expose_value=False,
    callback=_scratch,
    help="Where models at URLs are kept while they are read or made. Default: the temporary one.",
)


def pairs(texts: tuple[str, ...]) -> dict[str, str]:
    """Return what `--param KEY=VALUE` options say; wrong usage if a key is given twice."""
    found = {}
    for text in texts:
        key, value = pair(text)
        if key in found:
            raise click.UsageError(f"--param {key} is given twice")
        found[key] = value
    return found


def pair(text: str) -> tuple[str, str]:
    """Return the key and the value of KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.UsageError(f"{text!r} is not KEY=VALUE, such as beta=0.9")
    return key.strip(), value.strip()


def engine(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return where to do the work, of --on, --retries and --workers; an error where it is not."""
    if options.get("on") is not None:
        from breadcrumbs.merging import executors

        if options.get("workers") is not None:
            raise click.UsageError("give --workers or --on")
        executors.named(options["on"])
    return {"on": options.get("on"), "retries": options["retries"]}


def scoring(options: Mapping[str, Any]) -> Settings:
    """Return how to score, of --results, --workers, --on, --device, --precision and --plugin."""
    from breadcrumbs.checkpoint import cache
    from breadcrumbs.evaluate.scoring.settings import Settings

    return Settings(
        results=str(Path(options["results"]).absolute()),
        workers=options["workers"] or 0,
        device=options["device"],
        precision=options["precision"],
        cache=cache.folder(),
        plugins=tuple(os.path.abspath(plugin) for plugin in options.get("plugins", ())),
        **(engine(options) if "retries" in options else {}),
    )
