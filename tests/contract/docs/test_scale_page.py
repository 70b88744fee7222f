"""The autoscalers on docs/how-to/scale.md: their schema, and that they name what there is."""

import re
import warnings
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from kaito_core.api.workspace.crd import workspace_crd

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "how-to" / "scale.md").read_text()
DOCUMENTS: dict[str, Any] = {
    document["kind"]: document
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    for document in yaml.safe_load_all(block)
}
METRICS = (ROOT / "runtime" / "src" / "kaito_runtime" / "http" / "metrics.py").read_text()


def test_the_autoscaler_is_one_that_kubernetes_takes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        kubernetes_validate.validate(
            DOCUMENTS["HorizontalPodAutoscaler"], kubernetes_validate.latest_version(), strict=True
        )


@pytest.mark.parametrize("kind", ["HorizontalPodAutoscaler", "ScaledObject"])
def test_they_scale_a_workspace(kind: str) -> None:
    spec = workspace_crd()["spec"]
    target = DOCUMENTS[kind]["spec"]["scaleTargetRef"]
    served = {
        f"{spec['group']}/{version['name']}" for version in spec["versions"] if "scale" in version["subresources"]
    }
    assert target["apiVersion"] in served and target["kind"] == spec["names"]["kind"]


def test_they_read_metrics_that_the_server_has() -> None:
    named = set(re.findall(r"vllm:\w+", PAGE)) | {name.replace("_", ":", 1) for name in re.findall(r"\bvllm_\w+", PAGE)}
    assert len(named) == 2 and all(f'"{name}"' in METRICS for name in named)
