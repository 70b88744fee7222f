"""Measures start-up times: of the command line, with a hundred plugins, and of the operator halves of all plugins.

Prints medians of five runs, and their ratios to the bare interpreter on the same machine.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from kaito_testing.installed import PRESET_PLUGIN, install_plugin

RUNS = 5
PLUGINS = 100
HALVES = "from importlib_metadata import entry_points; [entry.load() for entry in entry_points(group='kaito')]"


def install_plugins(site: Path) -> None:
    """Installs `PLUGINS` distributions with one plugin each into a folder, as pip would."""
    for number in range(PLUGINS):
        name = f"dummy-{number:03}"
        install_plugin(site, name, PRESET_PLUGIN.format(name=name))


def seconds(arguments: list[str], env: Mapping[str, str]) -> float:
    """Returns the duration of one run of the interpreter, in seconds."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env={**os.environ, **env})
    return time.perf_counter() - started


def main() -> None:
    """Measures, and prints a table."""
    with tempfile.TemporaryDirectory() as folder:
        install_plugins(Path(folder))
        path = {"PYTHONPATH": folder}
        cases: dict[str, tuple[list[str], Mapping[str, str]]] = {
            "bare interpreter": (["-c", "pass"], {}),
            "import of every operator half": (["-c", HALVES], {}),
            "kaito presets list": (["-m", "kaito_core.cli", "presets", "list"], {}),
            "kaito plugins list": (["-m", "kaito_core.cli", "plugins", "list"], {}),
            f"kaito plugins list, {PLUGINS} more": (["-m", "kaito_core.cli", "plugins", "list"], path),
        }
        for arguments, env in cases.values():
            seconds(arguments, env)  # the first run compiles to byte code
        # In turn, so that other load on the machine affects all cases equally.
        runs = [{what: seconds(*case) for what, case in cases.items()} for _ in range(RUNS)]
    medians = {what: statistics.median(run[what] for run in runs) for what in cases}
    bare = medians["bare interpreter"]
    print(f"{'median of ' + str(RUNS):36}{'seconds':>9}{'above bare':>13}{'ratio':>8}")
    for what, median in medians.items():
        print(f"{what:36}{median:9.3f}{median - bare:13.3f}{median / bare:8.1f}")


if __name__ == "__main__":
    main()
