"""API keys from files and mounted Secrets that change, vanish and come back."""

from pathlib import Path

import pytest

from kaito_runtime.errors import ServeError
from kaito_runtime.keys import ONLY_KEY, ApiKeys


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 2.0  # each look is a look at the file
        return self.now


def name(keys: ApiKeys, key: str) -> str | None:
    return keys.name_of(f"Bearer {key}".encode())


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("secret\n", {ONLY_KEY: "secret"}),
        ("user:pass", {ONLY_KEY: "user:pass"}),
        ("# ours\n\nalice: one\nbob:   two==\n", {"alice": "one", "bob": "two=="}),
        ("alice: one", {"alice": "one"}),
    ],
)
def test_a_file_has_one_key_or_named_ones(text: str, keys: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(text)
    read = ApiKeys.read(tmp_path / "keys")
    assert {key: name(read, key) for key in keys.values()} == {key: each for each, key in keys.items()}
    assert name(read, "other") is name(read, "") is None


def test_a_mounted_secret_has_a_file_per_key(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "alice").write_text("one\n")
    (tmp_path / "alice").symlink_to("..data/alice")
    keys = ApiKeys.read(tmp_path)
    assert name(keys, "one") == "alice" and keys.has("one") and not keys.has("two")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no key"),
        ("# nothing\n", "has no key"),
        ("alice: one\ntwo", "line 2: must be 'NAME: KEY'$"),
        ("alice: one\nalice: two", "line 2: duplicate name 'alice'"),
        ("alice: one\nbob: one", "'alice' and 'bob' are the same key"),
    ],
)
def test_a_file_that_is_wrong_is_named_without_its_keys(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ServeError, match=words) as error:
        ApiKeys.read(tmp_path / "keys")
    assert "one" not in str(error.value) and "two" not in str(error.value)
    with pytest.raises(ServeError, match="No such file"):
        ApiKeys.read(tmp_path / "none")


def test_keys_are_read_again_and_those_of_before_stay_while_the_file_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("alice: one")
    keys = ApiKeys({"alice": "one"}, path, Clock())
    assert name(keys, "one") == "alice" and not keys.error
    path.unlink()
    assert name(keys, "one") == "alice" and "No such file" in keys.error
    path.write_text("alice: new\nbroken line")
    assert name(keys, "one") == "alice" and "line 2" in keys.error
    path.write_text("bob: three")
    assert name(keys, "three") == "bob" and name(keys, "one") is None and not keys.error
