from typing import Any

import pytest
from site_in_memory import CHAT, Site


def test_upstream_chat_takes_prompts_and_messages(site: Site) -> None:
    options = {"generate_kwargs": {"max_length": 4, "do_sample": False, "num_beams": 3}}
    assert site.client.post("/chat", json={"prompt": "ab", **options}).json() == {"Result": "abhe"}
    assert site.engine.jobs[0].sampling.temperature == 0
    body = {"messages": CHAT["messages"], "return_full_text": False}
    assert site.client.post("/chat", json=body).json() == {"Result": "hello"}
    assert {version.name for version in site.engine.jobs[0].strengths} == {"a"}


@pytest.mark.parametrize("body", [{}, {"prompt": "a", "messages": CHAT["messages"]}, {"prompt": "abcd"}])
def test_upstream_chat_refuses_what_it_cannot_answer(site: Site, body: dict[str, Any]) -> None:
    site.error(site.client.post("/chat", json={**body, "generate_kwargs": {"max_length": 3}}), 400)
    site.error(site.client.post("/chat", json={**body, "generate_kwargs": {"temperature": 1e9}}), 400)
    assert site.error(site.client.post("/chat", json={"messages": []}), 400)["param"] == "messages"
