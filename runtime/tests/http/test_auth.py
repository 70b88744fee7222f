"""Bearer tokens, and the size limit of bodies."""

from pathlib import Path

from site_in_memory import CHAT, Site


def test_key_is_needed_everywhere_but_on_probes(tmp_path: Path) -> None:
    site = Site(tmp_path, api_key="secret")
    for path in ("/v1/models", "/v1/adapters", "/metrics", "/version", "/docs", "/nothing"):
        assert site.error(site.client.get(path), 401)["type"] == "authentication_error"
    wrong = {"authorization": "Bearer wrong"}
    site.error(site.client.post("/v1/chat/completions", json=CHAT, headers=wrong), 401)
    good = {"authorization": "Bearer secret"}
    assert site.client.post("/v1/chat/completions", json=CHAT, headers=good).status_code == 200
    assert all(site.client.get(path).status_code == 200 for path in ("/health", "/healthz", "/livez", "/readyz"))


OPEN = {"/", "/health", "/healthz", "/livez", "/readyz"}


def test_no_route_is_forgotten_by_the_key(tmp_path: Path) -> None:
    site = Site(tmp_path, api_key="secret", admin_token="other")
    routes = [(route.path, method) for route in site.app.routes for method in route.methods]
    assert len(routes) > 20
    for path, method in routes:
        refused = site.client.request(method, path.replace("{model_id:path}", "m")).status_code == 401
        assert refused is (path not in OPEN), (method, path)


def test_what_is_applied_and_metrics_can_be_open(tmp_path: Path) -> None:
    site = Site(tmp_path, api_key="secret", open_status=True)
    found = {path for path in ("/v1/adapters", "/metrics", "/v1/models") if site.client.get(path).status_code == 200}
    assert found == {"/v1/adapters", "/metrics"}


def test_large_body_is_413_whether_announced_or_not(site: Site) -> None:
    body = b'{"model": "m", "prompt": "' + b"x" * (9 << 20) + b'"}'
    json_type = {"content-type": "application/json"}
    site.error(site.client.post("/v1/completions", content=body, headers=json_type), 413)
    chunks = iter([body[i : i + (1 << 20)] for i in range(0, len(body), 1 << 20)])
    site.error(site.client.post("/v1/completions", content=chunks, headers=json_type), 413)
    assert not site.engine.jobs


def test_chat_page_is_open_and_the_rest_is_not(tmp_path: Path) -> None:
    site = Site(tmp_path, api_key="sesame")
    assert "<title>kaito-runtime</title>" in site.client.get("/").text
    assert site.client.get("/v1/models").status_code == 401
    assert "/" not in site.app.openapi()["paths"]
