"""The calls that open-webui makes of an OpenAI connection: models, a streamed chat with its extra fields, tools."""

import json
import os

import httpx

client = httpx.Client(base_url=os.environ["BASE_URL"], headers={"Authorization": "Bearer sesame"})
models = client.get("/models").json()
assert models["object"] == "list" and models["data"][0]["id"] == "m"
body = {
    "model": "m",
    "stream": True,
    "stream_options": {"include_usage": True},
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Where?"}]},
    ],
}
with client.stream("POST", "/chat/completions", json=body) as response:
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
assert lines[-1] == "[DONE]"
chunks = [json.loads(line) for line in lines[:-1]]
assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]).endswith("Paris.")
assert chunks[-1]["usage"]["total_tokens"] > 0
title = client.post(
    "/chat/completions", json=body | {"stream": False, "max_completion_tokens": 50, "stream_options": None}
)
assert title.json()["choices"][0]["message"]["content"].endswith("Paris.")
assert client.get("/models", headers={"Authorization": "Bearer wrong"}).json()["error"]["message"]
