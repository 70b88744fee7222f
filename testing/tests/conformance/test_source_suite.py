"""The suite for adapter sources: the built-in ones keep every rule, and each rule finds the source that breaks it."""

import itertools
import socket
from collections.abc import Iterable
from typing import Any

import pytest
from rules import rules, verdict

from kaito_core.api import AdapterRef, FetchStep
from kaito_core.builtin.file import FileSource
from kaito_core.builtin.hf import HfSource
from kaito_core.builtin.http import HttpSource
from kaito_core.builtin.image import ImageSource
from kaito_core.builtin.volume import VolumeSource
from kaito_core.errors import FieldError
from kaito_testing.conformance import AdapterSourceConformance, reference

SERIAL = itertools.count()


class TestImageSource(AdapterSourceConformance):
    good = (reference("registry.example/adapters/style:1", pull_secrets=["pull"]),)
    bad = (reference("Registry Example"), reference(""))
    checks_digest = False

    def source(self) -> ImageSource:
        return ImageSource()


class TestVolumeSource(AdapterSourceConformance):
    good = (reference("styles/one", volume={"persistentVolumeClaim": {"claimName": "adapters"}}),)
    bad = (reference("", volume={}), reference("../other", volume={"persistentVolumeClaim": {"claimName": "a"}}))
    checks_digest = False

    def source(self) -> VolumeSource:
        return VolumeSource()


class TestHttpSource(AdapterSourceConformance):
    good = (reference("https://files.example/style.tar"),)
    bad = (reference("https://169.254.169.254/latest"), reference("https://user:word@files.example/a.tar"))

    def source(self) -> HttpSource:
        return HttpSource()


class TestHfSource(AdapterSourceConformance):
    good = (reference("hf://team/style@main"),)
    bad = (reference("hf://team"),)

    def source(self) -> HfSource:
        return HfSource()


class TestFileSource(AdapterSourceConformance):
    good = (reference("file:///srv/adapters/style"),)
    bad = (reference("file://host/srv"), reference("file:///srv/../etc"))
    checks_digest = False

    def source(self) -> FileSource:
        return FileSource()


class SoundSource:
    """Keeps every rule."""

    name = "sound"
    schemes: Any = ("sound",)

    def check(self, ref: AdapterRef) -> Iterable[FieldError]:
        key = ref.location.removeprefix("sound://")
        if not key.isidentifier():
            yield FieldError(ref.field, f"must be sound://name, got '{ref.location}'")

    def fetch(self, ref: AdapterRef, target: str) -> FetchStep:
        digest = ("--digest", ref.digest) if ref.digest else ()
        volume = {"name": f"sound-{ref.name}", "emptyDir": {}}
        return FetchStep(
            command=("fetch", ref.location, "--to", target, *digest),
            image="registry.example/fetch:1",
            mounts=({"name": volume["name"], "mountPath": "/cache"},),
            volumes=(volume,),
        )


class SoundSuite(AdapterSourceConformance):
    good = (reference("sound://style"),)
    bad = (reference("sound://"), reference("sound://a b"))
    made_by: type[Any] = SoundSource

    def source(self) -> Any:
        return self.made_by()


def suite_of(**broken: Any) -> type[Any]:
    return type("Suite", (SoundSuite,), {"made_by": type("BrokenSource", (SoundSource,), broken)})


def step(*command: str, **fields: Any) -> Any:
    """Returns a `fetch` that answers with a fixed step."""
    return lambda self, ref, target: FetchStep(command=tuple(command) or ("fetch", target), **fields)


def connects(*arguments: Any) -> None:
    socket.getaddrinfo("files.example", 443)


def fetches_at_once(self: Any, ref: AdapterRef, target: str) -> FetchStep:
    connects()
    return SoundSource().fetch(ref, target)


def raises(self: Any, ref: AdapterRef) -> Iterable[FieldError]:
    if not ref.location.removeprefix("sound://").isidentifier():
        raise ValueError("bad location")
    return ()


def takes_all_ascii(self: Any, ref: AdapterRef) -> Iterable[FieldError]:
    return () if ref.location.isascii() else SoundSource().check(ref)


def splits(self: Any, ref: AdapterRef, target: str) -> FetchStep:
    _, name = ref.location.split("://")
    return FetchStep(command=("fetch", name, target))


def serial(self: Any, ref: AdapterRef, target: str) -> FetchStep:
    return FetchStep(command=("fetch", ref.location, target, str(next(SERIAL))))


CACHE = {"name": "cache", "mountPath": "/cache"}
#: By rule: the suite that must object, and a part of the verdict.
BROKEN: dict[str, tuple[type[Any], str]] = {
    "test_examples_are_given": (type("Suite", (SoundSuite,), {"bad": ()}), "bad must hold at least one"),
    "test_constructor_does_no_io": (suite_of(__init__=connects), "socket.getaddrinfo"),
    "test_registry_takes_it": (suite_of(schemes=("https",)), "adapter scheme 'https' is provided by builtin"),
    "test_good_references_are_taken": (
        suite_of(check=lambda self, ref: [FieldError(ref.field, "is refused")]),
        "'sound://style' is refused",
    ),
    "test_bad_references_are_refused": (suite_of(check=lambda self, ref: ()), "'sound://' is not refused"),
    "test_faults_name_the_field": (
        suite_of(check=lambda self, ref: [FieldError("source", "is wrong")]),
        "the fault must name ref.field, got 'source'",
    ),
    "test_garbage_is_no_crash": (suite_of(check=takes_all_ascii, fetch=splits), "fetch raises ValueError"),
    "test_answers_are_pure": (suite_of(fetch=serial), "fetch must return the same each time"),
    "test_nothing_is_fetched_by_the_operator": (suite_of(fetch=fetches_at_once), "socket.getaddrinfo"),
    "test_step_writes_to_the_target": (suite_of(fetch=step("fetch")), "the target folder is neither in the command"),
    "test_digest_is_passed_on": (suite_of(fetch=step()), "the digest is neither in the command nor"),
    "test_mounts_have_volumes": (suite_of(fetch=step(mounts=(CACHE,))), "no volume cache"),
    "test_volume_names_are_valid_and_apart": (
        suite_of(fetch=step(mounts=(CACHE,), volumes=({"name": "cache", "emptyDir": {}},))),
        "two adapters would share the volume",
    ),
    "test_container_fits_the_schema": (suite_of(fetch=step(env={"RETRIES": 3})), "Kubernetes refuses the container"),
}


def test_every_rule_has_a_source_that_breaks_it() -> None:
    assert set(BROKEN) == rules(AdapterSourceConformance)


@pytest.mark.parametrize("rule", sorted(BROKEN))
def test_a_sound_source_passes(rule: str) -> None:
    assert verdict(SoundSuite, rule) == ""


@pytest.mark.parametrize("rule", sorted(BROKEN))
def test_a_broken_source_is_found(rule: str) -> None:
    suite, words = BROKEN[rule]
    assert words in verdict(suite, rule)


@pytest.mark.parametrize(
    ("rule", "suite", "words"),
    [
        ("test_examples_are_given", type("Suite", (SoundSuite,), {"good": ()}), "good must hold at least one"),
        ("test_registry_takes_it", suite_of(schemes="sound"), "must be a tuple of lower-case strings"),
        ("test_registry_takes_it", suite_of(schemes=("so und",)), "must be a URI scheme"),
        ("test_registry_takes_it", suite_of(schemes=("other",)), "has the scheme 'sound', which is not in schemes"),
        ("test_bad_references_are_refused", suite_of(check=raises), "check raises ValueError"),
        ("test_faults_name_the_field", suite_of(check=lambda self, ref: ["wrong"]), "must return FieldErrors"),
        ("test_step_writes_to_the_target", suite_of(fetch=lambda self, ref, target: ["fetch", target]), "a FetchStep"),
        ("test_mounts_have_volumes", suite_of(fetch=step(volumes=({"name": "cache"},))), "cache is not mounted"),
        (
            "test_mounts_have_volumes",
            suite_of(fetch=step(mounts=({"name": "adapters"},), volumes=({"name": "adapters"},))),
            "adapters is a volume of the pod itself",
        ),
        (
            "test_volume_names_are_valid_and_apart",
            suite_of(fetch=step(volumes=({"name": "A_b"},))),
            "must be named by a DNS label",
        ),
    ],
)
def test_other_ways_to_break_a_rule(rule: str, suite: type[Any], words: str) -> None:
    assert words in verdict(suite, rule)
