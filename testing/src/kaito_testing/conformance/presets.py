"""The rules for plugins that bring model presets."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from types import ModuleType

import pytest
from pydantic import ValidationError

from kaito_core.api import GpuSku, KubeObject, ModelPreset, NodeState, parse_workspace
from kaito_core.builtin import plugin as builtin
from kaito_core.errors import KaitoError, PluginError
from kaito_core.plugins import PluginRegistry
from kaito_core.reconcile.desired import desired
from kaito_core.reconcile.resolve import resolve
from kaito_core.settings import Settings

__all__ = ["ModelPresetConformance"]

#: Libraries that the operator does not need, and that take seconds to import.
HEAVY = ("torch", "transformers", "triton", "peft", "kopf", "kubernetes", "kaito_runtime")
#: Tokens whose keys and values must fit into memory beside the weights.
SHORT_CONTEXT = 2048
_NUMBERS = ("gpus", "memory_gib", "disk_gib", "context_length", "kv_bytes_per_token", "startup_seconds")
_COMMIT = re.compile("[0-9a-f]{40}")
_IMPORT = """
import sys, importlib
importlib.import_module(sys.argv[1])
print(*sorted(set(sys.argv[2:]) & set(sys.modules)))
"""


class ModelPresetConformance:
    """Rules for the presets of one plugin.

    Example:
        class TestPresets(ModelPresetConformance):
            plugin = kaito_acme.plugin

    Attributes:
        plugin: The module that the plugin's entry point names.
    """

    plugin: ModuleType

    def presets(self) -> list[ModelPreset]:
        """Returns the presets of the plugin's hook."""
        return list(self.plugin.kaito_model_presets())

    def test_plugin_registers(self) -> None:
        """The registry accepts the plugin, which has at least one preset."""
        registry = PluginRegistry(Settings())
        registry.register(builtin, "builtin")
        try:
            registry.register(self.plugin, "plugin")
        except PluginError as error:
            pytest.fail(f"the plugin is refused: {error}")
        assert registry.presets, "kaito_model_presets returns no preset"

    def test_records_are_valid(self) -> None:
        """Every preset passes the checks of its own fields, however it was made."""
        for preset in self.presets():
            try:
                ModelPreset.model_validate(preset.model_dump())
            except ValidationError as error:
                pytest.fail(f"preset '{preset.name}': {error}")

    def test_answers_are_the_same_each_time(self) -> None:
        """The hook returns equal presets each time: operator and command line each call it once."""
        assert self.presets() == self.presets(), "kaito_model_presets must return the same presets each time"

    def test_import_is_light(self) -> None:
        """Importing the plugin imports neither torch nor any other heavy library: it is imported at every start."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        result = subprocess.run(
            [sys.executable, "-c", _IMPORT, self.plugin.__name__, *HEAVY],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        assert result.returncode == 0, f"{self.plugin.__name__} cannot be imported: {result.stderr}"
        assert not result.stdout.split(), f"importing {self.plugin.__name__} imports {result.stdout.strip()}"

    def test_memory_holds_the_weights(self) -> None:
        """The memory of a replica holds the weights, and the keys and values of a short context."""
        self._refuse(
            f"preset '{preset.name}': {field} is {memory:g}, the weights and {tokens} tokens need {needed:.2f} GiB"
            for preset in self.presets()
            for field in ["gpu_memory_gib" if preset.gpus else "memory_gib"]
            for memory in [getattr(preset, field)]
            for tokens in [min(SHORT_CONTEXT, preset.context_length)]
            for needed in [preset.weights.size_gib + tokens * preset.kv_bytes_per_token / 2**30]
            if memory < needed
        )

    def test_disk_holds_the_weights(self) -> None:
        """The disk of a replica is larger than the weights."""
        self._refuse(
            f"preset '{preset.name}': disk_gib is {preset.disk_gib:g}, the weights have {preset.weights.size_gib:g} GiB"
            for preset in self.presets()
            if preset.disk_gib <= preset.weights.size_gib
        )

    def test_cache_has_keys_and_values_of_16_bits(self) -> None:
        """`kv_bytes_per_token` is 2 (keys, values) * key-value heads * head width * layers * 2 bytes: 4 divides it."""
        self._refuse(
            f"preset '{preset.name}': kv_bytes_per_token is {preset.kv_bytes_per_token}, which 4 does not divide"
            for preset in self.presets()
            if preset.kv_bytes_per_token % 4
        )

    def test_sources_are_named(self) -> None:
        """`sources` says where each number comes from, and names existing fields only."""
        fields = set(ModelPreset.model_fields) | {f"weights.{name}" for name in ("revision", "size_gib", "package")}
        for preset in self.presets():
            wanted = {*_NUMBERS, "weights.revision", "weights.size_gib"}
            wanted |= {name for name in ("gpu_memory_gib", "heads") if getattr(preset, name)}
            missing = sorted(name for name in wanted if not preset.sources.get(name, "").strip())
            assert not missing, f"preset '{preset.name}': sources must name {', '.join(missing)}"
            unknown = sorted(set(preset.sources) - fields)
            assert not unknown, (
                f"preset '{preset.name}': sources must name fields of a preset, got {', '.join(unknown)}"
            )

    def test_weights_are_pinned(self) -> None:
        """The revision is a commit, so that two starts serve the same; or its source says "not pinned", and why."""
        self._refuse(
            f"preset '{preset.name}': weights.revision must be a commit of 40 digits, got '{preset.weights.revision}'; "
            "where it cannot be, sources['weights.revision'] must say 'not pinned' and why"
            for preset in self.presets()
            if not _COMMIT.fullmatch(preset.weights.revision)
            and "not pinned" not in preset.sources.get("weights.revision", "")
        )

    def test_images_are_pinned(self) -> None:
        """The image has a tag other than "latest", or a digest."""
        self._refuse(
            f"preset '{preset.name}': image must have a version as its tag, or a digest, got '{preset.image}'"
            for preset in self.presets()
            if "@sha256:" not in preset.image and preset.image.rpartition("/")[2].partition(":")[2] in ("", "latest")
        )

    def test_manifests_render(self) -> None:
        """The operator renders objects for each preset, which fit Kubernetes' schemas (if those are installed)."""
        registry = PluginRegistry(Settings())
        registry.register(builtin, "builtin")
        registry.register(self.plugin, "plugin")
        for preset in self.presets():
            sku = GpuSku("conformance", 64, 64 * 1024, "any") if preset.gpus else None
            try:
                resolved = resolve(parse_workspace(_workspace(preset)), registry)
                manifests = desired(resolved, NodeState(("node-1",), sku=sku), Settings()).objects
            except KaitoError as error:
                pytest.fail(f"preset '{preset.name}': {error}")
            assert manifests, f"preset '{preset.name}': nothing is rendered for it"
            self._check_schemas(preset, manifests)

    def _check_schemas(self, preset: ModelPreset, manifests: Sequence[KubeObject]) -> None:
        if find_spec("kubernetes_validate") is None:
            return
        import kubernetes_validate

        for manifest in manifests:
            try:
                kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
            except kubernetes_validate.ValidationError as error:
                pytest.fail(f"preset '{preset.name}': Kubernetes refuses its {manifest['kind']}: {error}")

    @staticmethod
    def _refuse(faults: Iterable[str]) -> None:
        found = list(faults)
        assert not found, "\n".join(found)


def _workspace(preset: ModelPreset) -> KubeObject:
    options = {"modelAccessSecret": "hugging-face"} if preset.weights.gated else {}
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "conformance", "namespace": "default", "uid": "uid"},
        "inference": {"preset": {"name": preset.name, "presetOptions": options}},
    }
