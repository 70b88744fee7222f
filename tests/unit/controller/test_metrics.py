"""The metrics of the plugins."""

from kaito_core.controller.metrics import Metrics
from kaito_core.plugins import PluginInfo


def test_every_plugin_is_a_series_with_its_state_and_the_broken_ones_are_counted() -> None:
    metrics = Metrics()
    metrics.show_plugins(
        [
            PluginInfo("good", "kaito-good 1.0", "good", "loaded"),
            PluginInfo("bad", "kaito-bad 2.0", "bad", "failed", error="boom"),
            PluginInfo("file", "", "/plugins/file.py", "skipped"),
        ]
    )
    lines = metrics.render().decode().splitlines()
    assert [line for line in lines if line.startswith("kaito_plugin")] == [
        "kaito_plugins_failed 1.0",
        'kaito_plugin_info{distribution="kaito-good 1.0",name="good",state="loaded"} 1.0',
        'kaito_plugin_info{distribution="kaito-bad 2.0",name="bad",state="failed"} 1.0',
        'kaito_plugin_info{distribution="",name="file",state="skipped"} 1.0',
    ]
