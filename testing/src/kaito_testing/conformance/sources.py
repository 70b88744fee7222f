"""The rules for plugins that bring adapter sources."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, ClassVar

import pytest

from kaito_core.api import AdapterRef, AdapterSource, FetchStep
from kaito_core.api.workspace.pod_parts import RESERVED_VOLUMES
from kaito_core.errors import FieldError, PluginError
from kaito_core.reconcile.objects.podspec import adapter_container
from kaito_testing.conformance.guards import no_io
from kaito_testing.registry import registry_with

__all__ = ["AdapterSourceConformance", "reference"]

DIGEST = "sha256:" + "5e" * 32
TARGET = "/mnt/adapter/style/0a1b2c3d"
_LABEL = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SCHEME = re.compile("[a-z][a-z0-9+.-]*")
_LONGEST_NAME = "a" * 55  # the limit of a Workspace
_GARBAGE = ("", " ", "/", "..", "://", "\0", "a" * 5000, "é\n", "[", "//[::1", "x://y z?#%zz")


def reference(
    location: str,
    *,
    name: str = "style",
    digest: str | None = None,
    volume: Mapping[str, Any] | None = None,
    pull_secrets: Sequence[str] = (),
) -> AdapterRef:
    """Returns a reference as a Workspace has it; the scheme is that of the location.

    Example:
        reference("hf://team/style")
        reference("folder", volume={"persistentVolumeClaim": {"claimName": "c"}})    # scheme "volume"
        reference("registry.example/style:1")                                       # scheme "image"
    """
    scheme = "volume" if volume is not None else location.partition(":")[0] if "://" in location else "image"
    return AdapterRef(name, scheme, location, "inference.adapters[0].source.uri", digest, tuple(pull_secrets), volume)


class AdapterSourceConformance:
    """Rules for one adapter source.

    Example:
        class TestAcmeSource(AdapterSourceConformance):
            good = (reference("acme://team/style"),)
            bad = (reference("acme://"),)

            def source(self):
                return AcmeSource()

    Attributes:
        good: References that the source accepts, at least one.
        bad: References that it must refuse, at least one.
        checks_digest: Whether the step itself checks the digest. A source that only copies files may leave that to the
            runtime, which checks the digest of each adapter before it loads it.
    """

    good: ClassVar[Sequence[AdapterRef]] = ()
    bad: ClassVar[Sequence[AdapterRef]] = ()
    checks_digest: ClassVar[bool] = True

    def source(self) -> AdapterSource:
        """Returns a new instance of the source."""
        raise NotImplementedError("source() must return a new instance of the source under test")

    def test_examples_are_given(self) -> None:
        """There are references of both kinds; without them the other rules would pass for any source."""
        assert self.good, "good must hold at least one reference that the source accepts"
        assert self.bad, "bad must hold at least one reference that the source refuses"

    def test_constructor_does_no_io(self) -> None:
        """The constructor runs at every start, so it uses neither network nor files."""
        with no_io():
            self.source()

    def test_registry_takes_it(self) -> None:
        """The registry accepts its name and schemes, which no other source has."""
        source = self.source()
        assert isinstance(source, AdapterSource), f"{type(source).__name__} lacks a member of AdapterSource"
        assert source.schemes, "schemes must name at least one scheme"
        foreign = not source.__class__.__module__.startswith("kaito_core.builtin.")
        try:
            if foreign:  # the registry has the built-in ones already
                registry_with(sources=[source])
        except PluginError as error:
            pytest.fail(f"the source is refused: {error}")
        for scheme in source.schemes:
            assert _SCHEME.fullmatch(scheme), (
                f"schemes: '{scheme}' must be a URI scheme of lower-case letters, digits, '+', '.' and '-'"
            )
        for ref in (*self.good, *self.bad):
            assert ref.scheme in source.schemes, (
                f"'{ref.location}' has the scheme '{ref.scheme}', which is not in schemes"
            )

    def test_good_references_are_taken(self) -> None:
        """`check` returns no fault for good references."""
        for ref in self.good:
            faults = list(self.source().check(ref))
            assert not faults, f"'{ref.location}' is refused: {'; '.join(map(str, faults))}"

    def test_bad_references_are_refused(self) -> None:
        """`check` returns faults for bad references, and does not raise: users see all faults at once."""
        for ref in self.bad:
            assert self._faults(ref), f"'{ref.location}' is not refused"

    def test_faults_name_the_field(self) -> None:
        """Each fault is a FieldError with `ref.field`, or a part of it, and a message."""
        for ref in self.bad:
            moved = replace(ref, field="inference.adapters[7].source.uri")
            for fault in self._faults(moved):
                assert isinstance(fault, FieldError), f"check must return FieldErrors, got {fault!r}"
                assert fault.field.startswith(moved.field), (
                    f"'{ref.location}': the fault must name ref.field, got '{fault.field}'"
                )
                assert fault.message.strip(), f"'{ref.location}': the fault must have a message"

    def test_garbage_is_no_crash(self) -> None:
        """`check` raises for no text at all, and `fetch` for none that `check` accepts."""
        source = self.source()
        for example in self.good:
            for text in _GARBAGE:
                for location in (text, f"{example.scheme}://{text}"):
                    ref = replace(example, location=location)
                    if not self._faults(ref):
                        try:
                            source.fetch(ref, TARGET)
                        except Exception as error:
                            pytest.fail(
                                f"check accepts {location!r:.80}, but fetch raises {type(error).__name__}: {error}"
                            )

    def test_answers_are_pure(self) -> None:
        """The same reference gives equal results, from one instance or two: the operator compares them in each pass."""
        source = self.source()
        for ref in self.good:
            steps = [source.fetch(ref, TARGET), source.fetch(ref, TARGET), self.source().fetch(ref, TARGET)]
            assert steps[0] == steps[1] == steps[2], f"'{ref.location}': fetch must return the same each time"
        for ref in self.bad:
            assert self._faults(ref) == self._faults(ref), f"'{ref.location}': check must return the same each time"

    def test_nothing_is_fetched_by_the_operator(self) -> None:
        """`check` and `fetch` use neither network nor files: the step does, in the pod."""
        source = self.source()
        with no_io():
            for ref in (*self.good, *self.bad):
                if not list(source.check(ref)):
                    source.fetch(ref, TARGET)

    def test_step_writes_to_the_target(self) -> None:
        """The command is a tuple of words, and the target folder is in it or in the environment."""
        for ref, step in self._steps():
            assert isinstance(step, FetchStep), f"'{ref.location}': fetch must return a FetchStep, got {step!r}"
            words = step.command
            assert isinstance(words, tuple) and words and all(isinstance(word, str) and word for word in words), (
                f"'{ref.location}': command must be a tuple of words, got {words!r}"
            )
            assert any(TARGET in word for word in (*words, *step.env.values())), (
                f"'{ref.location}': the target folder is neither in the command nor in the environment: {words}"
            )

    def test_digest_is_passed_on(self) -> None:
        """The digest of a reference is in its step."""
        if not self.checks_digest:
            pytest.skip("this source leaves digests to the runtime")
        for ref in self.good:
            step = self.source().fetch(replace(ref, digest=DIGEST), TARGET)
            assert any(DIGEST in word for word in (*step.command, *step.env.values())), (
                f"'{ref.location}': the digest is neither in the command nor in the environment"
            )

    def test_mounts_have_volumes(self) -> None:
        """Each mount is of a volume of the step or of the pod, and each volume of the step is mounted."""
        shared = set(RESERVED_VOLUMES)
        for ref, step in self._steps():
            mounted, brought = {m["name"] for m in step.mounts}, {v["name"] for v in step.volumes}
            assert mounted <= brought | shared, (
                f"'{ref.location}': there is no volume {', '.join(mounted - brought - shared)}"
            )
            assert brought <= mounted, f"'{ref.location}': {', '.join(brought - mounted)} is not mounted"
            assert not brought & shared, (
                f"'{ref.location}': {', '.join(brought & shared)} is a volume of the pod itself"
            )

    def test_volume_names_are_valid_and_apart(self) -> None:
        """Volume names are DNS labels, also for the longest adapter name, and differ between adapters of one pod."""
        for ref in self.good:
            names = [
                {volume["name"] for volume in self.source().fetch(replace(ref, name=name), TARGET).volumes}
                for name in ("style", _LONGEST_NAME)
            ]
            wrong = [name for name in names[0] | names[1] if not _LABEL.fullmatch(name)]
            assert not wrong, (
                f"'{ref.location}': volume {wrong[0]!r} must be named by a DNS label of at most 63 characters"
            )
            assert not names[0] & names[1], f"'{ref.location}': two adapters would share the volume {names[0]}"

    def test_container_fits_the_schema(self) -> None:
        """Kubernetes accepts the init container that the step becomes."""
        if find_spec("kubernetes_validate") is None:
            pytest.skip("kubernetes-validate is not installed")
        import kubernetes_validate

        for ref, step in self._steps():
            container = adapter_container(ref.folder, step, "registry.example/runtime:1")
            volumes = [{"name": name, "emptyDir": {}} for name in RESERVED_VOLUMES] + list(step.volumes)
            spec = {"initContainers": [container], "containers": [{"name": "main", "image": "i"}], "volumes": volumes}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "conformance"}, "spec": spec}
            try:
                kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
            except kubernetes_validate.ValidationError as error:
                pytest.fail(f"'{ref.location}': Kubernetes refuses the container: {error}")

    def _steps(self) -> list[tuple[AdapterRef, FetchStep]]:
        return [(ref, self.source().fetch(ref, TARGET)) for ref in self.good]

    def _faults(self, ref: AdapterRef) -> list[FieldError]:
        try:
            return list(self.source().check(ref))
        except Exception as error:
            pytest.fail(f"check raises {type(error).__name__} for {ref.location!r:.80}: {error}; return a FieldError")
