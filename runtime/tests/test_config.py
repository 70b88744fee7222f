import json
from importlib.resources import files
from pathlib import Path

import pytest

from kaito_core.api.serving import ServedAdapter, ServedBlend, ServedModel, ServingConfig
from kaito_runtime.config import (
    ConfigError,
    ConfigFile,
    config_from_flags,
    config_schema_text,
    parse_adapter_flag,
    parse_config,
)


def test_flags_make_the_configuration_that_a_file_would(tmp_path: Path) -> None:
    (tmp_path / "pirate").mkdir()
    config = config_from_flags(
        Path("/models/SmolLM2-135M-Instruct.Q4_1.gguf"),
        name=None,
        adapters=[f"pirate={tmp_path}/pirate@0.8", f"plain={tmp_path}/pirate"],
        dtype="auto",
    )
    assert config.model.name == "smollm2-135m-instruct"
    assert [(adapter.name, adapter.strength) for adapter in config.adapters] == [("pirate", 0.8), ("plain", 1.0)]
    assert config.adapters[0].path == str(tmp_path / "pirate")


def test_folder_with_an_at_sign_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "v@2").mkdir()
    assert parse_adapter_flag(f"a={tmp_path}/v@2").strength == 1.0
    assert parse_adapter_flag(f"a={tmp_path}/v@2@-0.5").strength == -0.5


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("pirate", "must be NAME=DIR"),
        ("=x", "must be NAME=DIR"),
        ("Pirate=x", "NAME in lower case"),
        ("a=missing", "folder 'missing' does not exist"),
        ("a=.@nan", "strength must be a finite number, got 'nan'"),
        ("a=.@11", "strength must be between -10 and 10"),
    ],
)
def test_bad_adapter_flag_says_what_is_wrong(flag: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_adapter_flag(flag)


def test_same_name_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="duplicate model ids: a"):
        config_from_flags(Path("m"), name=None, adapters=[f"a={tmp_path}", f"a={tmp_path}"], dtype="auto")
    with pytest.raises(ConfigError, match="dtype"):
        config_from_flags(Path("m"), name=None, adapters=[], dtype="int8")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "invalid JSON"),
        (b"{", "invalid JSON"),
        (b"[]", "must be a mapping, got a list"),
        (b"{}", "model is required"),
        (b'{"model": {"name": ""}}', "model.name must have at least 1 character"),
        (b'{"model": {"name": "m"}, "adapters": [{"name": "a", "strength": "x"}]}', r"adapters\[0\].strength must be"),
        (b'{"model": {"name": "m"}, "adaptors": []}', "adaptors is not a known field"),
        (b'{"schemaVersion": 2, "model": {"name": "m"}}', "schemaVersion must be 1, got 2"),
    ],
)
def test_bad_file_names_itself_and_the_field(content: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^serving.json: .*{message}"):
        parse_config(content, "serving.json")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.json: No such file"):
        ConfigFile(tmp_path / "none.json").read()


def test_schema_that_is_published_is_the_one_of_the_code() -> None:
    """Regenerate: kaito-runtime config-schema > runtime/src/kaito_runtime/schemas/serving-config.json"""
    published = files("kaito_runtime").joinpath("schemas", "serving-config.json").read_text(encoding="utf-8")
    assert published == config_schema_text()


def test_schema_takes_what_the_operator_writes_and_refuses_what_is_misspelt() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(config_schema_text())
    blend = ServedBlend(name="both", strengths={"a": 0.5})
    config = ServingConfig(model=ServedModel(name="m"), adapters=(ServedAdapter(name="a"),), blends=(blend,))
    written = json.loads(config.to_json())
    jsonschema.validate(written, schema)
    for wrong in ({**written, "adapter": []}, {**written, "model": {}}, {**written, "generation": -1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
