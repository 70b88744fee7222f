"""Installed plugins, broken in every way: real distributions' metadata in a folder on the path, real imports."""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from kaito_core.plugins import PluginInfo, PluginRegistry
from kaito_core.settings import Settings

GOOD = """
from kaito_core import hookimpl
from kaito_testing.registry import example_preset

@hookimpl
def kaito_model_presets():
    return [example_preset(name="{name}")]
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a distribution named DIST with modules (name to text) and entry points (group to lines)."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def add(dist: str, modules: Mapping[str, str], **groups: str) -> None:
        for module, text in modules.items():
            (tmp_path / f"{module}.py").write_text(text)
        info = tmp_path / f"{dist.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.0\n")
        lines = [f"[{group.replace('__', '.')}]\n{entries}\n" for group, entries in groups.items()]
        (info / "entry_points.txt").write_text("\n".join(lines))
        importlib.invalidate_caches()  # folders are remembered by their time of change, whose grain is coarse

    yield add
    for module in set(sys.modules) - before:
        if module.startswith("fake_"):
            del sys.modules[module]


def discover(*names: str, **settings: object) -> tuple[PluginRegistry, dict[str, PluginInfo]]:
    """Discovers, with what is really installed on this machine kept out unless it is named."""
    registry = PluginRegistry.discover(Settings(plugins_allow=names, **settings))  # type: ignore[arg-type]
    return registry, {info.name: info for info in registry.plugins if info.state != "skipped"}


def test_a_working_plugin(install: Install) -> None:
    install("kaito-fake", {"fake_good": GOOD.format(name="tiny")}, kaito="fake = fake_good")
    registry, infos = discover("fake")
    info = infos["fake"]
    assert (info.state, info.distribution, info.module, info.error) == ("loaded", "kaito-fake 1.0", "fake_good", "")
    assert info.names("preset") == ("tiny",)
    assert registry.preset("tiny").name == "tiny"
    assert registry.origin("preset", "tiny") == "fake"
    assert registry.failures == ()


def test_an_entry_point_may_name_an_object(install: Install) -> None:
    text = GOOD.format(name="tiny") + "\nclass Half:\n    kaito_model_presets = staticmethod(kaito_model_presets)\n"
    install("kaito-fake", {"fake_object": text + "plugin = Half()\n"}, kaito="fake = fake_object:plugin")
    assert "tiny" in discover("fake")[0].presets


BROKEN: dict[str, tuple[str, str, str]] = {
    # what: (module text, error, a line of the traceback)
    "missing import": (
        "import fake_absent",
        "ModuleNotFoundError: No module named 'fake_absent'",
        "import fake_absent",
    ),
    "syntax error": ("def (", "SyntaxError: invalid syntax (fake_broken.py, line 1)", "def ("),
    "exit at import": ("raise SystemExit(3)", "SystemExit: 3", "raise SystemExit(3)"),
    "endless recursion": (
        "def f(): g()\ndef g(): f()\nf()",  # Python shortens the traceback where one line alone repeats
        "RecursionError: maximum recursion depth exceeded",
        "def f(): g()",
    ),
    "an error that cannot be printed": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
        "E: (its message cannot be read)",
        "raise E",
    ),
    "misspelt hook": (
        "from kaito_core import hookimpl\n@hookimpl\ndef kaito_model_preset(): return []",
        "PluginValidationError: unknown hook 'kaito_model_preset'",
        "check_pending",
    ),
    "unmarked hook": (
        "def kaito_model_presets(): return []",
        "kaito_model_presets is not marked with @kaito_core.hookimpl, so it would never be called",
        "UnknownHookError",
    ),
    "argument that the hook does not have": (
        "from kaito_core import hookimpl\n@hookimpl\ndef kaito_model_presets(colour): return []",
        "PluginValidationError: Plugin 'fake'",
        "colour",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_plugin_is_left_out_and_the_others_work(install: Install, what: str) -> None:
    text, error, frame = BROKEN[what]
    install("kaito-broken", {"fake_broken": text}, kaito="fake = fake_broken")
    install("kaito-fine", {"fake_good": GOOD.format(name="tiny")}, kaito="later = fake_good")
    registry, infos = discover("fake", "later")
    assert infos["fake"].state == "failed"
    assert infos["fake"].error.startswith(error)
    assert frame in infos["fake"].traceback
    assert len(infos["fake"].traceback) < 10_000
    assert registry.failures == (infos["fake"],)
    assert set(registry.presets) == {"tiny"}


def test_control_c_is_not_swallowed(install: Install) -> None:
    install("kaito-broken", {"fake_broken": "raise KeyboardInterrupt"}, kaito="fake = fake_broken")
    with pytest.raises(KeyboardInterrupt):
        discover("fake")


@pytest.mark.parametrize("allow", [(), ("fake",)], ids=["all allowed", "allowed by name"])
def test_a_denied_plugin_is_not_imported(install: Install, allow: tuple[str, ...]) -> None:
    install("kaito-fake", {"fake_denied": "raise SystemExit"}, kaito="fake = fake_denied")
    registry = PluginRegistry.discover(Settings(plugins_deny=("fake",), plugins_allow=allow))
    (info,) = [info for info in registry.plugins if info.name == "fake"]
    assert (info.state, info.error) == ("skipped", "it is on the deny list (KAITO_PLUGINS_DENY)")
    assert "fake_denied" not in sys.modules


def test_a_plugin_that_is_not_on_the_allow_list_is_not_imported(install: Install) -> None:
    install("kaito-fake", {"fake_other": "raise SystemExit"}, kaito="fake = fake_other")
    registry = PluginRegistry.discover(Settings(plugins_allow=("something",)))
    states = {info.name: (info.state, info.error) for info in registry.plugins}
    assert states["fake"] == ("skipped", "it is not on the allow list (KAITO_PLUGINS_ALLOW)")
    assert states["builtin"] == ("loaded", "")
    assert "fake_other" not in sys.modules


def test_a_plugin_for_another_api_is_not_imported(install: Install) -> None:
    install("kaito-fake", {"fake_future": "raise SystemExit"}, kaito="fake = fake_future", kaito__api="fake = v9")
    info = discover("fake")[1]["fake"]
    assert info.error == "asks for plugin API v9, this kaito-core has v1; install a version of it that fits"
    assert "fake_future" not in sys.modules


def test_a_plugin_may_ask_for_this_api(install: Install) -> None:
    install("kaito-fake", {"fake_good": GOOD.format(name="tiny")}, kaito="fake = fake_good", kaito__api="fake = v1")
    assert discover("fake")[1]["fake"].state == "loaded"


@pytest.mark.parametrize("api", ["v1", None])
def test_a_plugin_whose_code_was_written_for_another_api_than_its_metadata_say(
    install: Install, api: str | None
) -> None:
    text = GOOD.format(name="tiny") + "\nKAITO_API = 2\n"
    groups = {"kaito__api": f"fake = {api}"} if api else {}
    install("kaito-fake", {"fake_liar": text}, kaito="fake = fake_liar", **groups)
    registry, infos = discover("fake")
    assert infos["fake"].error == (
        "asked for plugin API v1 before it was imported, its code says KAITO_API = 2; install a version of it that fits"
    )
    assert dict(registry.presets) == {}


def test_a_plugin_that_calls_itself_another_version_works_and_is_remarked(install: Install) -> None:
    install("kaito-fake", {"fake_good": GOOD.format(name="tiny") + "\n__version__ = '2.0'\n"}, kaito="fake = fake_good")
    info = discover("fake")[1]["fake"]
    assert (info.state, info.remarks) == ("loaded", ("has __version__ 2.0, but is installed as 1.0",))
    assert info.file.endswith("fake_good.py")


def test_what_is_installed_here_leaves_the_process_as_it_was() -> None:
    infos = PluginRegistry.discover(Settings()).plugins
    assert [info.name for info in infos if info.state == "loaded"]
    assert {info.name: info.remarks for info in infos if info.remarks} == {}


def test_a_damaged_distribution_harms_no_other(install: Install, tmp_path: Path) -> None:
    install("kaito-fine", {"fake_good": GOOD.format(name="tiny")}, kaito="later = fake_good")
    install("kaito-torn", {}, kaito="fake = fake good")  # no reference to an object
    install("kaito-bare", {}, kaito="bare = fake_absent")
    (tmp_path / "kaito_bare-1.0.dist-info" / "METADATA").unlink()
    registry, infos = discover("fake", "later", "bare")
    assert infos["fake"].state == "failed" and infos["bare"].state == "failed"
    assert set(registry.presets) == {"tiny"}


def test_plugins_load_ours_first_then_by_name(install: Install) -> None:
    for name in ("zebra", "aardvark", "builtin2"):
        install(f"kaito-{name}", {f"fake_{name}": GOOD.format(name=name)}, kaito=f"{name} = fake_{name}")
    loaded = list(discover("zebra", "aardvark", "builtin2")[1])
    assert loaded == ["builtin", "aardvark", "builtin2", "zebra"]


def test_of_two_plugins_of_one_name_the_later_distribution_is_left_out(install: Install) -> None:
    install("kaito-one", {"fake_one": GOOD.format(name="one")}, kaito="fake = fake_one")
    install("kaito-two", {"fake_two": GOOD.format(name="two")}, kaito="fake = fake_two")
    registry, _ = discover("fake")
    assert set(registry.presets) == {"one"}
    (failure,) = registry.failures
    assert failure.error == (
        "the plugin name is taken: fake (kaito-one 1.0) came before fake (kaito-two 1.0); uninstall one of them"
    )
    assert "fake_two" not in sys.modules


def test_one_module_under_two_names_counts_once(install: Install) -> None:
    text = "from kaito_core import hookimpl\n@hookimpl\ndef kaito_reconciled(): pass\n"
    install("kaito-fake", {"fake_watcher": text}, kaito="a = fake_watcher\nb = fake_watcher")
    _, infos = discover("a", "b")
    assert (infos["a"].state, infos["b"].state) == ("loaded", "failed")


def test_a_name_that_two_distributions_bring_names_both_and_disables_the_later_whole(install: Install) -> None:
    install("kaito-one", {"fake_one": GOOD.format(name="tiny")}, kaito="one = fake_one")
    more = GOOD.format(name="tiny").replace("return [", 'return [example_preset(name="only-here"), ')
    install("kaito-two", {"fake_two": more}, kaito="two = fake_two")
    registry, infos = discover("one", "two")
    assert infos["two"].error == (
        "the preset 'tiny' is provided by one (kaito-one 1.0) and by two (kaito-two 1.0): uninstall one, or deny it "
        "with KAITO_PLUGINS_DENY"
    )
    assert set(registry.presets) == {"tiny"}
    assert registry.origin("preset", "tiny") == "one"
