"""The examples of testing/README.md are tests that pass."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.DOTALL)


def test_the_examples_pass(tmp_path: Path) -> None:
    for index, example in enumerate(EXAMPLES):
        (tmp_path / f"test_example_{index}.py").write_text(example)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed is not None and int(passed[1]) >= len(EXAMPLES) == 2
