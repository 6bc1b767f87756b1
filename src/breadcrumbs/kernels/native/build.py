"""Builds the library of kernels: `python -m breadcrumbs.kernels.native.build`.

One file for all levels of a processor, of which the library names the best that runs (`level.c`).
Building a wheel runs this file by its path, so it imports nothing of the package. The compiler is
that of ``$CC``, ``cc``, ``gcc``, ``clang``, or zig, as PyPI has it; options of the environment are
not heeded, for some of them change bits. What asks for the digest alone imports little.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

HERE = Path(__file__).parent
SOURCES = HERE / "c"
#: What a file compiled for itself is called, by platform.
SUFFIX = {"win32": ".dll", "cygwin": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")

#: Options without which bits may differ, or nothing is fast.
NEEDED = ("-std=c11", "-O3", "-ffp-contract=off")
#: Options that are taken where a compiler knows them. zig's means no processor but those named.
LIKED = (
    "-g0",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-mcpu=baseline",
)
#: Options for those who write kernels.
STRICT = ("-Wall", "-Wextra", "-Werror", "-Wno-bitwise-conditional-parentheses")
V3 = ("-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2", "-mlzcnt", "-mmovbe")
V4 = ("-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl")
#: What each level adds to any processor of 64 bits, and what it likes.
LEVELS = {"base": ((), ()), "v3": (V3, ()), "v4": (V3 + V4, ("-mprefer-vector-width=512",))}
#: Finds what is undefined or out of bounds while tests run.
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g")
#: Kinds of raw weights, in bits; sources that know none, and no level.
WIDTHS = (16, 32)
ONCE = ("level",)
#: Compilers run at once at most: each takes 100 MB.
AT_ONCE = 4


class BuildError(Exception):
    """There is no compiler, or it does not make a library that this Python can load."""


def digest() -> str:
    """Return a digest of all that the library is made from."""
    made = hashlib.sha256(repr((NEEDED, LIKED, LEVELS, WIDTHS, ONCE)).encode())
    for path in sorted(SOURCES.iterdir()):
        made.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return made.hexdigest()[:32]


def identity() -> str:
    """Return what a library made from these sources says that it is: its version and digest."""
    version = (HERE.parents[1] / "version.py").read_text(encoding="utf-8")
    return f"{version.split('__version__ = ')[1].split()[0][1:-1]} {digest()}"


def compiler() -> list[str] | None:
    """Return the command of a compiler that works, zig if it is installed, or None."""
    import importlib.util
    import shlex
    import shutil

    named = shlex.split(os.environ.get("CC", ""))
    found = [named] if named else [[name] for name in ("cc", "gcc", "clang")]
    found.append([sys.executable, "-m", "ziglang", "cc"])
    for command in found:
        if command[1:2] == ["-m"] and not importlib.util.find_spec("ziglang"):
            continue
        if shutil.which(command[0]) and _compiles(command, NEEDED):
            return command
    return None


def build(
    output: Path,
    command: Sequence[str] | None = None,
    *,
    target: str = "",
    sanitize: bool = False,
    strict: bool = False,
    kept: Path | None = None,
) -> str:
    """Build the library at ``output``, which it takes when it is whole; return what was done.

    command: the compiler. target: another machine to build for, by the name that zig gives it.
    sanitize: with checks of what is undefined or out of bounds. strict: warnings are errors. kept:
    a folder that keeps what is compiled for the next time.
    """
    import shutil
    import tempfile

    command = list(command or compiler() or ())
    if not command:
        raise BuildError("there is no compiler of C: install one, or ziglang from PyPI")
    if output.exists() and not output.is_file():
        raise BuildError(f"{output}: is no file that a library can replace")
    name = "zig" if "ziglang" in command else " ".join(command)
    if target:
        command += ["-target", target]
    flags = [*NEEDED, *_known(command, (*LIKED, *(STRICT if strict else ())))]
    if sanitize:
        flags += SANITIZED
    levels = {}
    for level, (needed, liked) in LEVELS.items():
        if not needed or _compiles(command, needed):
            levels[level] = [*flags, *needed, *_known(command, liked)]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / output.name
        objects = _compile(command, flags, levels, kept or Path(folder))
        for old in set(map(str, kept.glob("*.o"))) - set(objects) if kept else ():
            Path(old).unlink()
        more = SANITIZED if sanitize else ()
        small = name == "zig" and "linux" in (target or sys.platform)
        _link([*command, *more], objects, made, small=small, loads=not (target or sanitize))
        partial = output.with_name(f".{os.getpid()}{output.name}")
        shutil.copyfile(made, partial)
        os.replace(partial, output)
    return f"{output.name}: {', '.join(levels)}, by {name}"


def _compile(command: list[str], flags: list[str], levels: dict, folder: Path) -> list[str]:
    """Compile every source for every level and kind of weights; return the objects.

    Those that the folder has already are taken as they are.
    """
    from concurrent.futures import ThreadPoolExecutor

    headers = b"".join(path.read_bytes() for path in sorted(SOURCES.glob("*.h")))
    runs, objects = [], []
    for source in sorted(SOURCES.glob("*.c")):
        ways = [
            [*mine, f"-DLEVEL={level}", f"-DRAW={width}"]
            for level, mine in levels.items()
            for width in WIDTHS
        ]
        if source.stem in ONCE:
            ways = [[*flags, f"-DLEVELS={len(levels)}", f'-DIDENTITY="{identity()}"']]
        for way in ways:
            run = [*command, *way, "-c", str(source)]
            made = hashlib.sha256(repr(run).encode() + headers + source.read_bytes()).hexdigest()
            objects.append(folder / f"{source.stem}-{made[:16]}.o")
            if not objects[-1].exists():
                runs.append((run, objects[-1]))
    with ThreadPoolExecutor(min(os.cpu_count() or 1, AT_ONCE)) as pool:
        for ran in pool.map(_make, *zip(*runs, strict=True)) if runs else ():
            if ran.returncode:
                raise BuildError(f"the compiler failed: {' '.join(ran.args)}\n{ran.stderr}")
    return [str(path) for path in objects]


def _make(run: Sequence[str], out: Path) -> subprocess.CompletedProcess:
    """Run a compiler; what it makes is there when it is whole."""
    partial = out.with_suffix(f".{os.getpid()}.o")
    ran = _run([*run, "-o", str(partial)])
    if not ran.returncode:
        os.replace(partial, out)
    return ran


def _link(command: list[str], objects: list[str], made: Path, *, small: bool, loads: bool) -> None:
    """Link the library; it must load into this Python if ``loads``.

    small: without a C library, which zig would make first, for half a minute; Python has one.
    """
    for extra in ([["-nostdlib"]] if small else []) + [[]]:
        run = [*command, "-shared", *extra, *objects, "-o", str(made)]
        ran = _run(run)
        if not ran.returncode and loads:
            ran = _run([sys.executable, "-c", f"import ctypes; ctypes.CDLL({str(made)!r}, 2)"])
        if not ran.returncode:
            return
    raise BuildError(f"the library cannot be linked, or loaded: {' '.join(run)}\n{ran.stderr}")


def _known(command: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Return those of the flags that a compiler knows."""
    if not flags or _compiles(command, ("-Werror", *flags)):
        return list(flags)
    return [flag for flag in flags if _compiles(command, ("-Werror", flag))]


def _compiles(command: Sequence[str], flags: Sequence[str]) -> bool:
    """Return whether a compiler makes something of these flags, and has the headers."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "try.c", Path(folder) / "try.o"
        source.write_text(
            "#include <math.h>\n#include <stdint.h>\n#include <string.h>\nint tried;\n"
        )
        return not _run([*command, *flags, "-c", str(source), "-o", str(out)]).returncode


def _run(command: Sequence[str]) -> subprocess.CompletedProcess:
    """Run a compiler, whose messages tell of what went wrong. zig keeps what it makes here."""
    import subprocess
    import tempfile

    kept = {"ZIG_LOCAL_CACHE_DIR": tempfile.gettempdir(), "LC_ALL": "C"}
    try:
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **kept})
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def objects_of(name: str) -> Path:
    """Return a folder for what a library of that name is made of."""
    folder = HERE / "__pycache__" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main() -> int:
    """Build the library beside this file; return 1, with a line, if that cannot be."""
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sanitize", action="store_true", help="with checks, as another file")
    parser.add_argument("--target", default="", help="another machine, as zig names it")
    parser.add_argument("-o", "--output", type=Path, help="instead of beside the sources")
    given = parser.parse_args()
    name = f"kernels{'-sanitized' if given.sanitize else ''}{SUFFIX}"
    try:
        print(
            build(
                given.output or HERE / name,
                target=given.target,
                sanitize=given.sanitize,
                strict=True,
                kept=objects_of(name + given.target),
            )
        )
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
