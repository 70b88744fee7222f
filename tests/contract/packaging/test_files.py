"""No file is so long that it must hold two nouns, and no folder so full that nobody knows which file to open."""

import subprocess
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[3]
MOST_LINES = 500
MOST_FILES = 15


def _sources() -> list[Path]:
    """Every Python file that git tracks or would."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for line in listed.splitlines() if (path := ROOT / line).is_file()]


def test_no_file_is_longer_than_500_lines() -> None:
    sources = _sources()
    assert len(sources) > 50, "git lists too few files to have looked at them all"
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources}
    too_long = {path: lines for path, lines in lengths.items() if lines > MOST_LINES}
    assert too_long == {}, f"split each along its nouns: at most {MOST_LINES} lines"


def test_no_folder_has_more_than_15_files() -> None:
    folders = Counter(str(path.parent.relative_to(ROOT)) for path in _sources())
    too_full = {folder: files for folder, files in folders.items() if files > MOST_FILES}
    assert too_full == {}, f"make rooms of each: at most {MOST_FILES} files"
