"""What pytest shows of a broken rule: the sentence that says what to change, and no code of the suite."""

import subprocess
import sys
from pathlib import Path

BROKEN = """
from kaito_core.api import FetchStep
from kaito_testing.conformance import AdapterSourceConformance, reference

class TestMine(AdapterSourceConformance):
    good = (reference("mine://style"),)
    bad = ()

    def source(self):
        return Source()

class Source:
    name, schemes = "mine", ("mine",)

    def check(self, ref):
        return []

    def fetch(self, ref, target):
        assert target.startswith("/nowhere"), "my own mistake"
        return FetchStep(command=("fetch", target))
"""


def test_a_broken_rule_is_one_sentence_and_a_mistake_of_the_plugin_has_its_trace(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(BROKEN)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    examples = shown.partition("TestMine.test_examples_are_given")[2].partition("____ ")[0]
    assert "bad must hold at least one reference that the source refuses" in examples
    assert "conformance/sources.py" not in examples and "assert " not in examples, examples
    purity = shown.partition("TestMine.test_answers_are_pure")[2].partition("____ ")[0]
    assert "test_mine.py:19: AssertionError" in purity, purity
