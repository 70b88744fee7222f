"""The built-in adapter sources: what they refuse, and what the steps do that they return."""

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaito_core.api import AdapterRef, AdapterSource, FetchStep
from kaito_core.builtin.commands import copy_folder
from kaito_core.builtin.file import FileSource
from kaito_core.builtin.hf import HfSource
from kaito_core.builtin.http import HttpSource, url_fault
from kaito_core.builtin.image import ImageSource
from kaito_core.builtin.plugin import kaito_adapter_sources
from kaito_core.builtin.volume import MOUNT_PATH, VolumeSource
from kaito_core.settings import Settings

TARGET = "/mnt/adapter/style/1a2b"
DIGEST = "sha256:" + "a" * 64


def ref(scheme: str, location: str, **changes: Any) -> AdapterRef:
    field = "inference.adapters[0].source.uri"
    return AdapterRef(**{"name": "style", "scheme": scheme, "location": location, "field": field, **changes})


def faults(source: AdapterSource, given: AdapterRef) -> list[str]:
    return [str(fault) for fault in source.check(given)]


def test_schemes_are_unique_and_protocols_met() -> None:
    sources = kaito_adapter_sources(Settings())
    assert all(isinstance(source, AdapterSource) for source in sources)
    schemes = [scheme for source in sources for scheme in source.schemes]
    assert sorted(schemes) == ["file", "hf", "http", "https", "image", "volume"]
    assert len({source.name for source in sources}) == len(sources)


class TestCopy:
    def test_copies_what_is_in_a_folder(self, tmp_path: Path) -> None:
        source, target = tmp_path / "it's a $(touch folder)", tmp_path / "to; rm -rf" / "here"
        source.mkdir()
        (source / ".hidden").write_text("h")
        (source / "adapter_config.json").write_text("{}")
        subprocess.run(copy_folder(str(source), str(target)), check=True)
        assert sorted(path.name for path in target.iterdir()) == [".hidden", "adapter_config.json"]
        subprocess.run(copy_folder(str(source), str(target)), check=True)  # a restarted container copies again
        assert len(list(target.iterdir())) == 2

    def test_links_are_followed_where_asked(self, tmp_path: Path) -> None:
        (tmp_path / "blob").write_text("weights")
        source = tmp_path / "snapshot"
        source.mkdir()
        (source / "adapter_model.safetensors").symlink_to(tmp_path / "blob")
        subprocess.run(copy_folder(str(source), str(tmp_path / "to"), follow_links=True), check=True)
        copied = tmp_path / "to" / "adapter_model.safetensors"
        assert (copied.is_symlink(), copied.read_text()) == (False, "weights")

    def test_a_missing_folder_fails(self, tmp_path: Path) -> None:
        done = subprocess.run(copy_folder(str(tmp_path / "none"), str(tmp_path / "to")), capture_output=True)
        assert done.returncode != 0

    @given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1).map("/".__add__))
    def test_any_path_stays_one_word(self, path: str) -> None:
        words = shlex.split(copy_folder(path, path)[2])
        assert words == ["mkdir", "-p", path, "&&", "cp", "-r", f"{path.rstrip('/')}/.", path]


class TestImage:
    def test_runs_the_adapters_own_image(self) -> None:
        step = ImageSource().fetch(ref("image", "acr.io/style:0.1", pull_secrets=("regcred",)), TARGET)
        assert step == FetchStep(
            image="acr.io/style:0.1",
            command=("/bin/sh", "-c", f"mkdir -p {TARGET} && cp -r /data/. {TARGET}"),
            pull_secrets=("regcred",),
        )

    @pytest.mark.parametrize(
        "image",
        [
            *(
                "busybox",
                "style:0.1",
                "team/style",
                "ghcr.io/Team-less/x:1".lower(),
                "localhost/a",
                "localhost:5000/a:b",
            ),
            *("REGISTRY.example:5000/a/b_c/d-e.f:V1.0_x", f"acr.io/style@{DIGEST}", f"acr.io/style:1@{DIGEST}"),
            *("10.0.0.1:5000/style:1", "image://acr.io/style:1"),
        ],
    )
    def test_accepts(self, image: str) -> None:
        assert faults(ImageSource(), ref("image", image)) == []

    @pytest.mark.parametrize(
        "image",
        [
            *("", " ", "acr.io/", "/style", "acr.io/Style:1", "style:", "style:1:2", "style@sha256:abc", "a b"),
            *("acr.io/style:1\n", "-style", "style:-1", "https://acr.io/style", "acr.io//style", "$(id)", "a" * 600),
            *(f"style@md5:{'a' * 32}", "ä/b"),
        ],
    )
    def test_refuses(self, image: str) -> None:
        (fault,) = faults(ImageSource(), ref("image", image))
        assert fault.startswith("inference.adapters[0].source.uri must be an image reference such as")

    def test_when_it_is_pulled_is_left_to_kubernetes(self) -> None:
        assert ImageSource().fetch(ref("image", "acr.io/style"), TARGET).pull_policy == ""

    def test_the_uri_form_names_the_same_image(self) -> None:
        assert ImageSource().fetch(ref("image", "image://acr.io/style:1"), TARGET).image == "acr.io/style:1"


CLAIM = {"persistentVolumeClaim": {"claimName": "adapters"}}


class TestVolume:
    def test_mounts_read_only_and_copies(self) -> None:
        step = VolumeSource().fetch(ref("volume", "", volume=CLAIM), TARGET)
        assert step.volumes == ({"name": "source-style", **CLAIM},)
        assert step.mounts == ({"name": "source-style", "mountPath": MOUNT_PATH, "readOnly": True},)
        assert step.command == ("kaito-fetch", MOUNT_PATH, TARGET)
        assert step.image is None

    def test_a_folder_of_the_volume(self) -> None:
        step = VolumeSource().fetch(ref("volume", "team/style", volume=CLAIM, digest=DIGEST), TARGET)
        assert step.command == ("kaito-fetch", f"{MOUNT_PATH}/team/style", TARGET, "--digest", DIGEST)

    def test_the_longest_adapter_name_makes_a_dns_label(self) -> None:
        step = VolumeSource().fetch(ref("volume", "", name="a" * 55, volume=CLAIM), TARGET)
        assert len(step.volumes[0]["name"]) <= 63

    @pytest.mark.parametrize(
        ("volume", "location", "words"),
        [
            (None, "", "must be a volumeSource"),
            ({"nfs": {}, "hostPath": {}}, "", "exactly one kind of volume, got hostPath, nfs"),
            (CLAIM, "/etc", "must have a path inside the volume, got '/etc'"),
            (CLAIM, "a/../../b", "must have a path inside the volume"),
        ],
    )
    def test_refuses(self, volume: Any, location: str, words: str) -> None:
        (fault,) = faults(VolumeSource(), ref("volume", location, volume=volume))
        assert words in fault

    def test_accepts(self) -> None:
        assert faults(VolumeSource(), ref("volume", "team/style", volume=CLAIM)) == []


class TestHttp:
    def test_lets_kaito_fetch_fetch(self) -> None:
        urls = "https://h.example/adapter_config.json https://h.example/adapter_model.safetensors?sig=a%20b"
        step = HttpSource().fetch(ref("https", urls, digest=DIGEST), TARGET)
        assert step == FetchStep(
            command=("kaito-fetch", *urls.split(), TARGET, "--digest", DIGEST),
        )
        assert "--digest" not in HttpSource().fetch(ref("https", urls), TARGET).command

    @pytest.mark.parametrize(
        "url",
        [
            *(
                "https://h.example/a.tar.gz",
                "http://h.example:8080/a.zip",
                "https://8.8.8.8/a",
                "https://[2606:4700::1111]/a",
            ),
            *("https://minio.storage.svc/a", "https://127.example/a", "https://localhost.example/a"),
        ],
    )
    def test_accepts(self, url: str) -> None:
        assert url_fault(url) == ""

    @pytest.mark.parametrize(
        "host",
        [
            *("localhost", "LOCALHOST", "localhost.", "a.localhost", "metadata", "metadata.google.internal"),
            *("metadata.google", "instance-data.ec2.internal", "127.0.0.1", "127.1", "2130706433", "0x7f000001"),
            *("0177.0.0.1", "10.0.0.5", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.100.100.200", "0.0.0.0"),
            *("224.0.0.1", "168.63.129.16", "[::1]", "[::]", "[fe80::1]", "[fe80::1%25eth0]", "[fd00::1]"),
            *("[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[ff02::1]", "255.255.255.255"),
        ],
    )
    def test_refuses_what_is_inside(self, host: str) -> None:
        for scheme in ("http", "https"):
            assert "must not point into the cluster's own network" in url_fault(f"{scheme}://{host}:8443/a")

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("ftp://h.example/a", "must be an https or http URL"),
            ("https:///a", "with a host"),
            ("https://h.example:99999/a", "must be a URL"),
            ("https://[::1/a", "must be a URL"),
            ("https://me:secret@h.example/a", "must not contain a user name or password"),
        ],
    )
    def test_refuses_what_is_not_a_url(self, url: str, words: str) -> None:
        assert words in url_fault(url)
        assert "secret" not in url_fault(url)

    def test_the_field_of_each_url_is_named(self) -> None:
        urls = "https://h.example/a/adapter_config.json http://10.0.0.1/b"
        (fault,) = faults(HttpSource(), ref("https", urls, field="inference.adapters[0].source.urls[0]"))
        assert fault.startswith("inference.adapters[0].source.urls[1] must not point")
        (fault,) = faults(HttpSource(), ref("http", "http://10.0.0.1/b"))
        assert fault.startswith("inference.adapters[0].source.uri must not point")

    def test_several_urls_are_an_adapters_files(self) -> None:
        urls = "https://h.example/adapter_config.json?sig=1 https://h.example/adapter_model.safetensors"
        assert faults(HttpSource(), ref("https", urls)) == []
        (fault,) = faults(HttpSource(), ref("https", f"{urls} https://h.example/adapter_model.bin"))
        assert "[2]" not in fault  # the field is a uri here: only a list of urls has places
        assert "where there are several URLs, got 'https://h.example/adapter_model.bin'" in fault
        assert faults(HttpSource(), ref("https", "https://h.example/style.tar.gz")) == []

    def test_what_the_settings_allow(self) -> None:
        def fault(url: str, **settings: Any) -> str:
            found = faults(HttpSource(Settings(**settings)), ref("https", url))
            return found[0] if found else ""

        assert "must be https, got 'http://h.example/a'; KAITO_FETCH_HTTP=true" in fault(
            "http://h.example/a?sig=s3cret"
        )
        assert fault("http://h.example/a", fetch_http=True) == ""
        assert "must have an allowed host" in fault("https://h.example/a", fetch_hosts=("*.corp.example",))
        assert fault("https://h.corp.example/a", fetch_hosts=("*.corp.example",)) == ""
        assert "must not point into the cluster's own network" in fault("https://10.1.2.3/a")
        assert fault("https://10.1.2.3/a", fetch_private_hosts=("10.0.0.0/8",)) == ""

    def test_the_adapters_secret_goes_to_its_step_alone(self) -> None:
        for source, uri in ((HttpSource(), "https://h.example/a"), (HfSource(), "hf://o/n")):
            step = source.fetch(ref(uri.partition(":")[0], uri, secret="mine", access_secret="all"), TARGET)
            assert (step.secret, step.secret_env) == ("mine", {})


@pytest.mark.parametrize(
    ("source", "reference"),
    [
        (ImageSource(), ref("image", "acr.io/style:1", secret="mine")),
        (VolumeSource(), ref("volume", "", volume=CLAIM, secret="mine")),
        (FileSource(), ref("file", "file:///srv/a", secret="mine")),
    ],
)
def test_a_secret_that_nothing_reads_is_refused(source: AdapterSource, reference: AdapterRef) -> None:
    (fault,) = faults(source, reference)
    assert fault.startswith("inference.adapters[0].source.secretName has no use here, got 'mine': ")


class TestHf:
    @pytest.mark.parametrize(
        "uri", ["hf://org/name", "hf://org/na.me_x@main", "hf://o/n@0a1b2c/sub/folder", "hf://o/n/sub"]
    )
    def test_accepts(self, uri: str) -> None:
        assert faults(HfSource(), ref("hf", uri)) == []
        step = HfSource().fetch(ref("hf", uri, digest=DIGEST), TARGET)
        assert step.command == ("kaito-fetch", uri, TARGET, "--digest", DIGEST)

    @pytest.mark.parametrize(
        "uri",
        ["hf://", "hf://name", "hf://o/n@", "hf://o/n/../x", "hf://o/n//x", "hf://o/-n", "hf://o/n@a@b", "hf://o/n x"],
    )
    def test_refuses(self, uri: str) -> None:
        (fault,) = faults(HfSource(), ref("hf", uri))
        assert f"must be hf://owner/name[@revision][/folder], got '{uri}'" in fault


class TestFile:
    def test_mounts_the_nodes_folder_read_only(self) -> None:
        step = FileSource().fetch(ref("file", "file:///srv/my%20adapters/style"), TARGET)
        assert step.volumes == (
            {"name": "source-style", "hostPath": {"path": "/srv/my adapters/style", "type": "Directory"}},
        )
        assert step.mounts == ({"name": "source-style", "mountPath": MOUNT_PATH, "readOnly": True},)
        assert step.command == ("kaito-fetch", MOUNT_PATH, TARGET)

    @pytest.mark.parametrize("uri", ["file:///srv/a", "file:/srv/a", "file://localhost/srv/a"])
    def test_accepts(self, uri: str) -> None:
        assert faults(FileSource(), ref("file", uri)) == []

    @pytest.mark.parametrize(
        ("uri", "words"),
        [
            ("file:adapters/style", "a relative path is for `kaito up`"),
            ("file:./style", "a relative path is for `kaito up`"),
            ("file://adapters/style", "must have three slashes"),
            ("file:///", "must name a folder"),
            ("file:///srv/../etc", "without '..'"),
            ("file:///srv/%2e%2e/etc", "without '..'"),
            ("file:///srv/a?x=1", "must name a folder"),
            ("file://[/a", "must be file:///absolute/path"),
        ],
    )
    def test_refuses(self, uri: str, words: str) -> None:
        (fault,) = faults(FileSource(), ref("file", uri))
        assert words in fault
