"""Plugins that look installed: a folder with modules and metadata as pip writes them, to be put on sys.path."""

from pathlib import Path

__all__ = ["PRESET_PLUGIN", "install_plugin"]

#: A plugin module with one preset; `PRESET_PLUGIN.format(name=...)`.
PRESET_PLUGIN = """
from kaito_core import hookimpl
from kaito_core.api import ModelPreset, Weights

@hookimpl
def kaito_model_presets():
    return [ModelPreset(
        name="{name}", family="dummy", architecture="DummyForCausalLM",
        weights=Weights(repository="example/{name}", revision="0123456789abcdef", size_gib=1),
        gpus=1, gpu_memory_gib=4, memory_gib=8, disk_gib=20, context_length=2048, kv_bytes_per_token=8192,
        license="Apache-2.0",
    )]
"""


def install_plugin(site: Path, name: str, text: str, *, api: str = "") -> None:
    """Writes the distribution "kaito-NAME 1.0" into a folder.

    Args:
        site: The folder.
        name: Name of the entry point; the module is named so too, with "_" for "-".
        text: The module's source.
        api: Version of the plugin API that it declares, such as "v1"; "" for none.
    """
    module = name.replace("-", "_")
    (site / f"{module}.py").write_text(text)
    info = site / f"kaito_{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kaito-{name}\nVersion: 1.0\n")
    group = f"\n[kaito.api]\n{name} = {api}\n" if api else ""
    (info / "entry_points.txt").write_text(f"[kaito]\n{name} = {module}\n{group}")
