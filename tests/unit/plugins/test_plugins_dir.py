"""Plugins that are single files in a folder: Python, YAML and JSON, as isolated as installed ones."""

import json
import os
import sys
from pathlib import Path

import pytest

from kaito_core.errors import ConfigError
from kaito_core.plugins import PluginInfo, PluginRegistry
from kaito_core.settings import Settings
from kaito_testing.registry import example_preset

GOOD = """
from kaito_core import hookimpl
from kaito_testing.registry import example_preset

@hookimpl
def kaito_model_presets():
    return [example_preset(name="{name}")]
"""


def discover(folder: Path, **settings: object) -> tuple[PluginRegistry, dict[str, PluginInfo]]:
    """Discovers the files alone: what is installed is off the allow list, which holds the stems of all files."""
    names = tuple(path.stem for path in folder.iterdir()) or ("none",)
    given = {"plugins_allow": names, **settings}
    registry = PluginRegistry.discover(Settings(plugins_dir=str(folder), **given))  # type: ignore[arg-type]
    return registry, {info.name: info for info in registry.plugins if info.file.startswith(str(folder))}


def document(name: str, **changes: object) -> str:
    record = example_preset(name=name).model_dump(mode="json")
    return json.dumps({"apiVersion": "kaito.sh/v1", "kind": "ModelPreset", **record, **changes})


def test_python_yaml_and_json_files_are_plugins_named_by_their_stem(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD.format(name="from-python"))
    (tmp_path / "more.yaml").write_text(f"# two\n---\n{document('one')}\n---\n{document('two')}\n")
    (tmp_path / "last.json").write_text(document("three"))
    for ignored in ("_helper.py", ".hidden.py", "notes.txt"):
        (tmp_path / ignored).write_text("raise SystemExit")
    (tmp_path / "folder.py").mkdir()
    registry, infos = discover(tmp_path)
    assert set(registry.presets) == {"from-python", "one", "two", "three"}
    assert registry.preset("one") == example_preset(name="one")
    assert {name: (i.state, i.distribution, i.file) for name, i in infos.items()} == {
        "last": ("loaded", "", str(tmp_path / "last.json")),
        "mine": ("loaded", "", str(tmp_path / "mine.py")),
        "more": ("loaded", "", str(tmp_path / "more.yaml")),
    }
    assert registry.origin("preset", "two") == "more"


def test_a_broken_file_is_left_out_and_the_others_work(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "exits.py").write_text("raise SystemExit(1)")
    (tmp_path / "fine.py").write_text(GOOD.format(name="tiny"))
    registry, infos = discover(tmp_path)
    assert {name: info.state for name, info in infos.items()} == {
        "broken": "failed",
        "exits": "failed",
        "fine": "loaded",
    }
    assert infos["broken"].error.startswith("SyntaxError") and "broken.py" in infos["broken"].traceback
    assert "kaito_plugin_file_exits" not in sys.modules
    assert set(registry.presets) == {"tiny"}


def test_allow_and_deny_lists_hold_for_files(tmp_path: Path) -> None:
    (tmp_path / "denied.py").write_text("raise SystemExit")
    (tmp_path / "other.yaml").write_text("{")
    _, infos = discover(tmp_path, plugins_allow=("denied",), plugins_deny=("denied",))
    assert {name: (info.state, info.error) for name, info in infos.items()} == {
        "denied": ("skipped", "it is on the deny list (KAITO_PLUGINS_DENY)"),
        "other": ("skipped", "it is not on the allow list (KAITO_PLUGINS_ALLOW)"),
    }


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("KAITO_API = 1", ""),
        ("KAITO_API = 9", "asks for plugin API v9, this kaito-core has v1; install a version of it that fits"),
        (
            "KAITO_API = 3 - 2",
            "line 2: KAITO_API must be a whole number written out, such as 1: it is read before the ",
        ),
        (
            "globals()['KAITO_API'] = 2",
            "asked for plugin API v1 before it was imported, its code says KAITO_API = 2; install",
        ),
    ],
)
def test_a_file_says_which_api_it_was_written_for(tmp_path: Path, line: str, error: str) -> None:
    trace = tmp_path / "ran"
    (tmp_path / "mine.py").write_text(f"import pathlib\n{line}\npathlib.Path({str(trace)!r}).touch()\n")
    _, infos = discover(tmp_path)
    assert infos["mine"].error.startswith(error) and bool(infos["mine"].error) == bool(error)
    assert trace.exists() == (not error or "its code says" in error), "an API is refused before the file is run"


def test_one_name_in_two_files_is_a_conflict(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD.format(name="a"))
    (tmp_path / "mine.yaml").write_text(document("b"))
    (tmp_path / "same.yaml").write_text(document("a"))
    registry, _ = discover(tmp_path)
    assert [failure.error for failure in registry.failures] == [
        f"the plugin name is taken: mine ({tmp_path / 'mine.py'}) came before mine ({tmp_path / 'mine.yaml'}); "
        "uninstall one of them",
        f"the preset 'a' is provided by mine ({tmp_path / 'mine.py'}) and by same ({tmp_path / 'same.yaml'}): "
        "uninstall one, or deny it with KAITO_PLUGINS_DENY",
    ]
    assert set(registry.presets) == {"a"}


def test_one_name_twice_in_one_file_leaves_the_file_out(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"{document('a')}\n---\n{document('b')}\n---\n{document('a')}\n")
    registry, infos = discover(tmp_path)
    assert infos["mine"].error == "duplicate preset 'a': it is brought twice by the same plugin"
    assert dict(registry.presets) == {}


def test_a_folder_that_is_not_there_is_a_setting_that_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        PluginRegistry.discover(Settings(plugins_dir=str(tmp_path / "no")))
    assert str(caught.value) == f"KAITO_PLUGINS_DIR: '{tmp_path / 'no'}' cannot be read: No such file or directory"


CHANGES = {
    "import os; os.environ['KAITO_TEST_TOKEN'] = 'hush'": "changed os.environ: KAITO_TEST_TOKEN",
    "import sys; sys.path.insert(0, '/nowhere')": "changed sys.path",
    "import warnings; warnings.simplefilter('ignore', category=BytesWarning)": "changed the warning filters",
    "import logging; logging.getLogger().setLevel(7)": "changed the root logger",
    "import signal; signal.signal(signal.SIGUSR1, signal.SIG_IGN)": "changed the handlers of signals: SIGUSR1",
    "import os; os.chdir('/')": "changed the working directory",
    "import sys; sys.setrecursionlimit(sys.getrecursionlimit() + 1)": "changed the recursion limit",
    "import threading\nthreading.Thread(target=gate.wait, name='busy', daemon=True).start()": "started threads: busy",
}


@pytest.mark.parametrize("text", CHANGES, ids=list(CHANGES.values()))
@pytest.mark.parametrize("when", ["at import", "in a hook", "before it breaks"])
def test_what_a_plugin_changes_in_the_process_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, when: str
) -> None:
    import logging
    import signal
    import threading
    import warnings

    gate = threading.Event()
    monkeypatch.setattr("builtins.gate", gate, raising=False)
    for variable, value in (("KAITO_TEST_TOKEN", "before"),):
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(sys, "path", list(sys.path))
    level, limit, handler = logging.getLogger().level, sys.getrecursionlimit(), signal.getsignal(signal.SIGUSR1)
    monkeypatch.chdir(tmp_path)
    hook = "from kaito_core import hookimpl\n@hookimpl\ndef kaito_model_presets():\n    {}\n    return []\n"
    (tmp_path / "mine.py").write_text(
        hook.format(text.replace("\n", "\n    "))
        if when == "in a hook"
        else text + ("\nraise ValueError('broken')" if when == "before it breaks" else "")
    )
    try:
        with warnings.catch_warnings():
            _, infos = discover(tmp_path)
    finally:
        gate.set()
        logging.getLogger().setLevel(level)
        sys.setrecursionlimit(limit)
        signal.signal(signal.SIGUSR1, handler)
    assert infos["mine"].remarks == (CHANGES[text],)
    assert infos["mine"].state == ("failed" if when == "before it breaks" else "loaded")
    assert "hush" not in str(infos["mine"])


def test_what_a_plugin_changed_before_its_hook_failed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAITO_TEST_TOKEN", "before")
    hook = "from kaito_core import hookimpl\n@hookimpl\ndef kaito_model_presets(): return 'falcon'\n"
    (tmp_path / "mine.py").write_text(f"import os; os.environ['KAITO_TEST_TOKEN'] = 'after'\n{hook}")
    _, infos = discover(tmp_path)
    assert infos["mine"].error == "TypeError: kaito_model_presets must return a list of ModelPreset, got str"
    assert infos["mine"].remarks == ("changed os.environ: KAITO_TEST_TOKEN",)


def test_what_a_plugin_prints_does_not_reach_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = (
        "from kaito_core import hookimpl\n@hookimpl\ndef kaito_model_presets():\n    print('in hook')\n    return []\n"
    )
    (tmp_path / "mine.py").write_text(f"print('at import')\n{hook}")
    discover(tmp_path)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.split("\n")[:2] == ["at import", "in hook"]


def test_a_link_as_a_config_map_makes_it_is_followed(tmp_path: Path) -> None:
    data = tmp_path / "..2026_01_01"
    data.mkdir()
    (data / "mine.yaml").write_text(document("tiny"))
    os.symlink(data, tmp_path / "..data")
    os.symlink(Path("..data") / "mine.yaml", tmp_path / "mine.yaml")
    registry, _ = discover(tmp_path)
    assert set(registry.presets) == {"tiny"}
