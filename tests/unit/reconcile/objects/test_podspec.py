"""Containers of fetch steps."""

import pytest

from kaito_core.api import FetchStep
from kaito_core.reconcile.objects.podspec import fetch_container


@pytest.mark.parametrize("policy", ["", "Always", "Never"])
def test_a_source_may_choose_when_its_image_is_pulled(policy: str) -> None:
    mount = {"name": "adapters", "mountPath": "/a"}
    step = FetchStep(command=("fetch",), image="registry.example/fetch:1", pull_policy=policy)
    container = fetch_container("adapter-a", step, "runtime:1", mount, {})
    assert container.get("imagePullPolicy", "") == policy
