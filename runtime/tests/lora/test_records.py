"""The records that rooms without torch share."""

import subprocess
import sys


def test_records_and_the_rooms_that_use_them_are_imported_without_torch() -> None:
    modules = ("kaito_runtime.lora.records", "kaito_runtime.engine.protocol", "kaito_runtime.adapters.catalog")
    code = f"import {', '.join(modules)}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
