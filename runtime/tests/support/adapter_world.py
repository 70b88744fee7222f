"""A configuration file and a folder of adapters, and the manager that serves them with an engine in memory."""

import asyncio
import json
from pathlib import Path
from typing import Any

from fakes import FakeEngine

from kaito_core.api.serving import ServingConfig
from kaito_runtime.adapters.manager import AdapterManager
from kaito_runtime.config import ConfigFile


class World:
    """A configuration file, a folder of adapters, and what is made of them.

    Args:
        adapters: Those of the configuration that the server starts with, generation 1.
    """

    def __init__(self, folder: Path, *adapters: Any) -> None:
        self.file = folder / "serving.json"
        self.adapters = folder / "adapters"
        self.engine: Any = FakeEngine()
        self.seconds = 0.0
        self.configure(1, adapters)
        self.manager = AdapterManager(
            self.engine,
            ServingConfig.model_validate_json(self.file.read_bytes()),
            adapters_dir=self.adapters,
            config_file=ConfigFile(self.file),
            clock=lambda: self.seconds,
        )

    def configure(self, generation: int, adapters: Any = (), **more: Any) -> None:
        body = {"generation": generation, "model": {"name": "m"}, "adapters": list(adapters)} | more
        self.file.write_text(json.dumps(body))

    def refresh(self, rounds: int = 2) -> None:
        """Two rounds are needed for files that change while the server runs."""
        for _ in range(rounds):
            asyncio.run(self.manager.refresh())

    def strengths(self, model: str = "m") -> dict[str, float]:
        found = self.manager.catalog.choose(model, None)
        return {version.name: strength for version, strength in found.strengths.items()}

    def states(self) -> dict[str, tuple[str, str]]:
        return {name: (str(status.state), status.message) for name, status in self.manager.catalog.statuses.items()}
