"""What all commands share: their help, `-q`, and what Ctrl-C does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from breadcrumbs.cli.group import GROUPS, main
from breadcrumbs.cli.grouped import Grouped
from breadcrumbs.cli.shared import COMPLETE
from breadcrumbs.methods.registry import METHODS


def walked(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield all commands by their path, groups too."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield " ".join((*path, name)), command
        if isinstance(command, click.Group):
            yield from walked(command, *path, name)


COMMANDS = dict(walked(main))


def test_help_names_all_commands_in_groups_with_whole_summaries() -> None:
    shown = CliRunner().invoke(main, ["--help"], terminal_width=80).output
    heads = [line[:-1] for line in shown.splitlines() if line[:1].strip() and line.endswith(":")]
    assert heads == ["Options", *GROUPS]
    lines = shown.splitlines()
    for name, command in COMMANDS.items():
        if " " in name:
            continue
        assert command.help
        summary = " ".join(command.help.split("\n\n")[0].split())
        (line,) = (line for line in lines if line.split()[:1] == [name])
        assert line.split(maxsplit=1)[1] == summary, "one sentence, on one line of 80 columns"


@pytest.mark.parametrize("path", COMMANDS)
def test_every_help_has_an_example_and_the_same_options_at_its_end(path: str) -> None:
    command = COMMANDS[path]
    assert command.help and f"\n    breadcrumbs {path}" in command.help
    if isinstance(command, click.Group):
        assert isinstance(command, Grouped)
        return
    shared = ["force", "strict", "no_sync", "verbose", "quiet", "as_json"]
    names = [parameter.name for parameter in command.params]
    last = [name for name in shared if name in names]
    assert names[-len(last) :] == last and "quiet" in last
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name == "output":
            assert parameter.opts == ["-o", "--output"]


def ran(code: str, *args: str, **options) -> subprocess.Popen[str]:
    """Start a program with a command ``slow`` of this code."""
    text = (
        "import logging, sys, time, warnings\n"
        "from breadcrumbs.cli import console\n"
        "from breadcrumbs.cli.shared import command\n"
        "@command()\n"
        "def slow():\n"
        f"{code}"
        "slow()\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", text, *args], stderr=subprocess.PIPE, text=True, **options
    )


def test_quiet_is_quiet_about_libraries_too() -> None:
    code = (
        "    warnings.warn('old')\n"
        "    logging.getLogger('transformers').warning('newer')\n"
        "    console.note(['known'])\n"
        "    console.warnings(['strange'])\n"
        "    logging.getLogger('torch').error('broken')\n"
    )
    for args, words in (
        ([], {"old", "newer", "known", "strange", "broken"}),
        (["-q"], {"broken"}),
    ):
        _, said = ran(code, *args).communicate(timeout=60)
        assert {w for w in ("old", "newer", "known", "strange", "broken") if w in said} == words


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_second_interrupt_stops_at_once() -> None:
    code = (
        "    try:\n"
        "        print('begun', file=sys.stderr, flush=True)\n"
        "        time.sleep(100)\n"
        "    finally:\n"
        "        {}\n"
    )
    default = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ran(code.format("pass")) as once, ran(code.format("time.sleep(100)")) as twice:
            for process in (once, twice):
                assert process.stderr is not None
                assert process.stderr.readline() == "begun\n"
                process.send_signal(signal.SIGINT)
            assert once.wait(60) == 130
            assert once.stderr is not None and once.stderr.read() == "breadcrumbs: interrupted.\n"
            assert twice.stderr is not None
            assert "Ctrl-C again stops at once" in twice.stderr.readline()
            twice.send_signal(signal.SIGINT)
            assert twice.wait(60) == 130
            assert twice.stderr.read() == "breadcrumbs: stopped.\n"
    finally:
        signal.signal(signal.SIGINT, default)


# --- completion ---


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of two tasks, one of them with a blank in its name."""
    from stores import filled

    folder = tmp_path_factory.mktemp("completion")
    made, paths = filled(folder, models=1, method="ties")
    made.add("my task", paths[1])
    made.close()
    return folder


#: What stands before the cursor, as bash cuts it into words, and what can follow.
TYPED = {
    ("merge", "-m", "ti"): ["ties"],
    ("merge", "--method", "=", "ti"): ["ties"],
    ("merge", "b", "-m", "slerp", "-p", ""): ["t=0.5"],
    ("merge", "b", "-p", "variant", "=", "au"): ["authors"],
    ("merge", "--dtype", "b"): ["bfloat16"],
    ("store", "remove", "store", ""): ["t1", "my\\ task"],
    ("store", "merge", "store", "-p", "shares", "=", "m"): ["magnitudes"],
    ("evaluate", "glue4", "--task", "m"): ["mrpc"],
    ("from-",): ["from-mergekit"],
}


@pytest.mark.skipif(not os.path.exists("/bin/bash"), reason="bash")
def test_bash_completes_values(store: Path) -> None:
    script = CliRunner().invoke(main, ["completion", "bash"]).output
    program = store / "breadcrumbs"
    start = "from breadcrumbs.cli import main; main(prog_name='breadcrumbs')"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{start}"\n')
    program.chmod(0o755)
    calls = []
    for words in TYPED:
        cut = " ".join(f"'{word}'" for word in ("breadcrumbs", *words))
        calls.append(
            f"COMP_WORDS=({cut}); COMP_CWORD={len(words)}; COMPREPLY=()\n"
            "_breadcrumbs_completion ./breadcrumbs; (IFS='|'; echo \"${COMPREPLY[*]}\")\n"
        )
    text = script + "".join(calls)
    done = subprocess.run(
        ["/bin/bash", "--norc", "-c", text], cwd=store, capture_output=True, text=True, timeout=120
    )
    found = [line.split("|") if line else [] for line in done.stdout.splitlines()]
    assert dict(zip(TYPED, found, strict=True)) == TYPED, done.stderr


START = "from breadcrumbs.cli import main; main(prog_name='breadcrumbs')"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_what_other_shells_get_takes_the_place_of_the_word(shell: str) -> None:
    word = {"zsh": "2", "fish": "--method=ti"}[shell]
    asked = {COMPLETE: f"{shell}_complete", "COMP_CWORD": word}
    asked["COMP_WORDS"] = "breadcrumbs merge --method=ti"
    command, env = [sys.executable, "-c", START], {**os.environ, **asked}
    said = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60).stdout
    between, end = {"zsh": "\n\n", "fish": ",\t"}[shell]
    assert said == f"plain{between}--method=ties{end}{METHODS['ties'].summary}\n"


@pytest.mark.skipif(not shutil.which("fish"), reason="fish")
def test_fish_completes_values(tmp_path: Path) -> None:
    program = tmp_path / "breadcrumbs"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{START}"\n')
    program.chmod(0o755)
    script = CliRunner().invoke(main, ["completion", "fish"]).output
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"{script}\ncomplete -C 'breadcrumbs merge -m ti'"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == f"ties\t{METHODS['ties'].summary}\n", done.stderr
