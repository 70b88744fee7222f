"""`kaito operator` before it reaches a cluster: its help, and settings that are wrong."""

from pathlib import Path

import pytest

from helpers.command_line import kaito
from kaito_core.settings import setting_docs


def test_the_help_names_every_setting() -> None:
    text = " ".join(kaito("operator", "--help").stdout.split())
    for doc in setting_docs():
        assert f"{doc.variable} ({doc.kind}" in text and doc.meaning in text
    assert "KAITO_LEASE_SECONDS (a whole number, between 3 and 300; default 15)" in text


@pytest.mark.parametrize("arguments", [("--config", "{file}", "operator"), ("operator", "--config", "{file}")])
def test_a_settings_file_that_is_wrong_ends_the_command(arguments: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "kaito.yaml"
    file.write_text("namespace: [a]\n")
    result = kaito(*(part.format(file=file) for part in arguments))
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith(f"error: {file}: unknown setting 'namespace'; did you mean 'namespaces'?")
