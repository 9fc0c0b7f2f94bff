"""Make `_sync` whenever hatchling builds a wheel or an editable install."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Hatchling loads this file by its path, which does not make its folder importable.
sys.path.insert(0, str(Path(__file__).parent))

from generate_sync import generate


class GenerateSync(BuildHookInterface[BuilderConfig]):
    """Runs before the files of the wheel are collected."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Generate `_sync` and name its files, which a .gitignore would leave out."""
        package = Path(self.root, "src", "step_redis")
        names = generate(package / "_async", package / "_sync")
        build_data["artifacts"] += [f"/src/step_redis/_sync/{name}" for name in names]
