"""Adapters that are loaded by request: who may, from where, and what they are beside those of the configuration."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import httpx
import openai
import pytest
from fakes import ByteCodec, FakeEngine, write_adapter
from fastapi.testclient import TestClient
from live import Live, serving, until

from kaito_core.api.serving import ServingConfig
from kaito_runtime.adapters.manager import AdapterManager
from kaito_runtime.config import ConfigFile
from kaito_runtime.errors import RequestError
from kaito_runtime.http.admin import adapter_folder
from kaito_runtime.http.app import create_app
from kaito_runtime.http.health import Health
from kaito_runtime.keys import ApiKeys

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
ADMIN = {"authorization": "Bearer token"}


class Site:
    """A configuration with adapter "a" and blend "both", and a folder with three adapters."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.engine: Any = FakeEngine(broken={"broken": "no such tensor"})
        self.file = folder / "serving.json"
        self.root = folder / "adapters"
        for name in ("a", "b", "deep/c"):
            write_adapter(self.root / name)
        self.configure("a")
        file = ConfigFile(self.file)
        config = file.read()
        assert config is not None
        self.manager = AdapterManager(self.engine, config, adapters_dir=self.root, config_file=file)
        self.refresh()
        health = Health(self.engine, self.manager, warm=True)
        key = options.pop("api_key", None)
        options["api_keys"] = None if key is None else ApiKeys.of(key)
        app = create_app(self.engine, ByteCodec(), self.manager, health, **{"admin_token": "token", **options})
        self.client = TestClient(app, raise_server_exceptions=False)

    def configure(self, *adapters: str) -> None:
        blends = [{"name": "both", "strengths": {}}]
        body = {"model": {"name": "m"}, "adapters": [{"name": name} for name in adapters], "blends": blends}
        self.file.write_text(json.dumps(body))

    def refresh(self) -> None:
        for _ in range(2):  # files that change while the server runs are looked at twice
            asyncio.run(self.manager.refresh())

    def post(self, path: str, status: int, **body: Any) -> dict[str, Any]:
        response = self.client.post(path, json=body, headers=ADMIN)
        assert response.status_code == status, response.text
        return {} if status == 200 else dict(response.json()["error"])

    def load(self, name: str = "b", path: str = "b", status: int = 200, **more: Any) -> dict[str, Any]:
        return self.post(LOAD, status, lora_name=name, lora_path=path, **more)

    def models(self) -> list[str]:
        return [card["id"] for card in self.client.get("/v1/models").json()["data"]]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_loaded_adapter_is_a_model_id_and_in_no_mix(site: Site) -> None:
    response = site.client.post(LOAD, json={"lora_name": "B_1", "lora_path": "b"}, headers=ADMIN)
    assert (response.status_code, response.text) == (200, "Success: LoRA adapter 'B_1' added successfully.")
    assert site.models() == ["m", "base", "a", "B_1", "both"]
    site.client.post("/v1/completions", json={"model": "B_1", "prompt": "x"})
    site.client.post("/v1/completions", json={"model": "m", "prompt": "x"})
    override = [{"name": "B_1", "strength": 0.5}, {"name": "a"}]
    site.client.post("/v1/completions", json={"model": "base", "prompt": "x", "adapters": override})
    used = [{version.name: strength for version, strength in job.strengths.items()} for job in site.engine.jobs]
    assert used == [{"B_1": 1.0}, {"a": 1.0}, {"B_1": 0.5, "a": 1.0}]
    assert 'kaito_adapter_strength{adapter="B_1"} 1.0' in site.client.get("/metrics").text


def test_report_keeps_it_apart_from_what_the_operator_compares(site: Site) -> None:
    site.load()
    report = site.client.get("/v1/adapters").json()
    assert [row["name"] for row in report["data"]] == ["a"]
    assert report["loaded_by_request"] == [{"name": "b", "digest": "sha256:found", "strength": 1.0, "state": "Ready"}]


def test_unloaded_adapter_is_gone(site: Site) -> None:
    site.load()
    body = {"lora_name": "b", "lora_int_id": 7}
    response = site.client.post(UNLOAD, json=body, headers=ADMIN)
    assert (response.status_code, response.text) == (200, "Success: LoRA adapter 'b' removed successfully.")
    assert site.engine.retired == [site.engine.loaded[-1]]
    assert site.models() == ["m", "base", "a", "both"]
    assert site.client.post("/v1/completions", json={"model": "b", "prompt": "x"}).status_code == 404
    assert site.post(UNLOAD, 404, **body)["code"] == "adapter_not_found"


def test_second_load_is_refused_unless_it_replaces(site: Site) -> None:
    site.load()
    assert "load_inplace" in site.load(status=400)["message"]
    site.load(path="deep/c", load_inplace=True)
    assert site.engine.retired == [site.engine.loaded[-2]]
    assert site.models().count("b") == 1


def test_replacement_that_fails_leaves_what_was_there(site: Site) -> None:
    site.load()
    site.engine.broken["b"] = "lora_A has the shape [4, 3]"
    error = site.load(status=400, load_inplace=True)
    assert (error["code"], error["param"]) == ("adapter_refused", "lora_path")
    assert "lora_A has the shape [4, 3]" in error["message"]
    assert "b" in site.models()
    assert site.engine.retired == []


def test_load_without_enough_memory_is_503(site: Site) -> None:
    site.engine.broken["b"] = MemoryError()
    assert "there is not enough memory: MemoryError" in site.load(status=503)["message"]
    site.engine.broken.clear()
    site.load()


@pytest.mark.parametrize(
    ("name", "what"), [("a", "adapter"), ("m", "model id"), ("base", "model id"), ("both", "model")]
)
def test_what_the_configuration_names_is_not_an_admin_s_to_change(site: Site, name: str, what: str) -> None:
    for inplace in (False, True):
        error = site.load(name, status=409, load_inplace=inplace)
        assert error["param"] == "lora_name"
        assert f"the configuration's {what}" in error["message"]
        assert "change it there, or choose another name" in error["message"]
    site.post(UNLOAD, 409, lora_name=name)
    assert len(site.engine.loaded) == 1


def test_reload_of_the_configuration_leaves_it(site: Site) -> None:
    site.load()
    site.configure()
    site.refresh()
    assert site.models() == ["m", "base", "b", "both"]
    assert [version.name for version in site.engine.retired] == ["a"]


def test_configuration_that_takes_the_name_wins(site: Site) -> None:
    site.load("guest", "deep/c")
    write_adapter(site.root / "guest")
    site.configure("a", "guest")
    asyncio.run(site.manager.refresh())
    # Not for a moment are the admin's weights served under the configuration's name.
    assert site.client.post("/v1/completions", json={"model": "guest", "prompt": "x"}).status_code == 503
    site.refresh()
    assert site.models() == ["m", "base", "a", "guest", "both"]
    assert site.client.get("/v1/adapters").json()["loaded_by_request"] == []
    assert [version.number for version in site.engine.retired] == [1]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"lora_name": None}, "lora_name"),
        ({"lora_name": ""}, "lora_name"),
        ({"lora_name": "a,b"}, "lora_name"),
        ({"lora_name": "x" * 254}, "lora_name"),
        ({"lora_name": 3}, "lora_name"),
        ({"lora_path": None}, "lora_path"),
        ({"lora_path": 3}, "lora_path"),
        ({"lora_path": ""}, "lora_path"),
        ({"load_inplace": "yes"}, "load_inplace"),
    ],
)
def test_bad_field_is_400_and_named(site: Site, change: dict[str, Any], param: str) -> None:
    body = {"lora_name": "b", "lora_path": "b", **change}
    assert site.post(LOAD, 400, **body)["param"] == param
    assert len(site.engine.loaded) == 1


@pytest.mark.parametrize("inside", ["b", "./b", "deep/c", "{root}/b"])
def test_folder_inside_is_taken(tmp_path: Path, inside: str) -> None:
    write_adapter(tmp_path / "b")
    write_adapter(tmp_path / "deep" / "c")
    folder = adapter_folder(tmp_path, inside.format(root=tmp_path))
    assert (folder / "adapter_config.json").is_file()


@pytest.mark.parametrize(
    "outside",
    [".", "", "..", "../secret", "b/../../secret", "/etc", "//etc", "/proc/self/cwd", "{root}", "{root}/../secret",
     "{root}x", "link", "linked-file", "circle", "b\0", "x" * 5000],
)  # fmt: skip
def test_nothing_outside_is_reached(tmp_path: Path, outside: str) -> None:
    root = tmp_path / "adapters"
    write_adapter(root / "b")
    write_adapter(tmp_path / "secret")
    write_adapter(tmp_path / "adaptersx")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "circle").symlink_to(root / "circle")
    (root / "linked-file").mkdir()
    (root / "linked-file" / "adapter_config.json").symlink_to(tmp_path / "secret" / "adapter_config.json")
    with pytest.raises(RequestError, match="must be a folder under the server's --adapters-dir") as refusal:
        adapter_folder(root, outside.format(root=root))
    assert (refusal.value.status, refusal.value.param) == (400, "lora_path")


def test_folder_that_is_missing_is_404(site: Site) -> None:
    assert site.load(path="nowhere", status=404)["param"] == "lora_path"
    with pytest.raises(RequestError, match="without --adapters-dir"):
        adapter_folder(None, "b")


def test_admin_routes_are_off_unless_there_is_a_token(tmp_path: Path) -> None:
    site = Site(tmp_path, admin_token=None)
    for path, body in ((LOAD, {"lora_name": "b", "lora_path": "b"}), (UNLOAD, {"lora_name": "b"})):
        error = site.post(path, 404, **body)
        assert error["code"] == "admin_off"
        assert "--admin-token-file" in error["message"]
    assert len(site.engine.loaded) == 1


@pytest.mark.parametrize("api_key", [None, "key"])
def test_admins_and_users_have_tokens_of_their_own(tmp_path: Path, api_key: str | None) -> None:
    site = Site(tmp_path, api_key=api_key)
    body = {"lora_name": "b", "lora_path": "b"}
    for header in ({}, {"authorization": "Bearer key"}, {"authorization": "token"}):
        refusal = site.client.post(LOAD, json=body, headers=header)
        assert refusal.status_code == 401
        assert "admin token" in refusal.json()["error"]["message"]
    assert len(site.engine.loaded) == 1
    assert site.client.get("/v1/models", headers=ADMIN).status_code == (200 if api_key is None else 401)
    assert site.client.post(LOAD, json=body, headers=ADMIN).status_code == 200


@pytest.fixture
def live(tiny_llama: Path, tiny_adapters: Path, tmp_path: Path) -> Iterator[Live]:
    copytree(tiny_adapters, tmp_path / "adapters")
    config = ServingConfig.model_validate({"model": {"name": "tiny"}, "adapters": [{"name": "one"}]})
    with serving(
        tiny_llama, config, adapters_dir=tmp_path / "adapters", admin_token="token", api_keys=ApiKeys.of("key")
    ) as live:
        yield live


def test_request_in_flight_outlives_its_adapter(live: Live) -> None:
    """With the weights of "two": loaded, replaced while a request runs, unloaded while another does."""
    client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="key", max_retries=0)

    def admin(path: str, **body: Any) -> httpx.Response:
        return httpx.post(live.url + path, json=body, headers=ADMIN, timeout=60).raise_for_status()

    def text() -> str:
        extra: Any = {"logit_bias": {"256": -100}}
        answer = client.completions.create(model="late", prompt="hi", max_tokens=200, temperature=0, **extra)
        return answer.choices[0].text

    def during(act: Any) -> str:
        got: list[str] = []
        thread = threading.Thread(target=lambda: got.append(text()))
        thread.start()
        until(lambda: live.engine.stats().running, "the request runs")
        act()
        thread.join()
        return got[0]

    admin(LOAD, lora_name="late", lora_path="two")
    two = text()
    assert during(lambda: admin(LOAD, lora_name="late", lora_path="one", load_inplace=True)) == two
    one = text()
    assert one != two
    assert during(lambda: admin(UNLOAD, lora_name="late")) == one
    with pytest.raises(openai.NotFoundError):
        text()
    resident = live.engine._runner.resident
    until(lambda: [entry.name for entry in resident()] == ["one"], "it is unloaded")


def test_adapter_that_cannot_be_applied_is_refused_with_the_reason(live: Live, tmp_path: Path) -> None:
    (tmp_path / "adapters" / "two" / "adapter_model.safetensors").write_bytes(b"nonsense")
    body = {"lora_name": "late", "lora_path": "two"}
    response = httpx.post(live.url + LOAD, json=body, headers=ADMIN)
    assert response.status_code == 400
    assert "adapter_model.safetensors is damaged" in response.json()["error"]["message"]
