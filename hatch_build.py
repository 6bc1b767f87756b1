"""What building a wheel does besides: it compiles the kernels, for the machine that builds it.

Where there is no compiler, zig from PyPI is one; where that does not work either, the wheel holds
no compiled kernels, and merges with NumPy's.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = "breadcrumbs/kernels/native"
#: Machines for which PyPI has zig, among those that the kernels are made for.
ZIG = {"linux": ("x86_64", "aarch64"), "darwin": ("x86_64", "arm64"), "win32": ("amd64", "arm64")}


class Kernels(BuildHookInterface):
    def dependencies(self) -> list[str]:
        zig = platform.machine().lower() in ZIG.get(sys.platform, ())
        return ["ziglang>=0.13"] if zig and not self._build().compiler() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        build = self._build()
        name = f"kernels{build.SUFFIX}"
        beside = version == "editable"  # where the sources are, so that it is used and checked
        self.folder = tempfile.TemporaryDirectory()
        made = Path(build.HERE if beside else self.folder.name) / name
        try:
            self.app.display_info(build.build(made))
        except (build.BuildError, OSError) as error:
            self.app.display_warning(f"without compiled kernels: {error}")
            return
        if not beside:
            build_data["force_include"][str(made)] = f"{NATIVE}/{name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{self._platform()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self.folder.cleanup()

    def _platform(self) -> str:
        from hatchling.builders.wheel import WheelBuilder

        return WheelBuilder(self.root).get_best_matching_tag().rpartition("-")[2]

    def _build(self) -> Any:
        path = Path(self.root) / "src" / NATIVE / "build.py"
        spec = importlib.util.spec_from_file_location("build_kernels", path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
