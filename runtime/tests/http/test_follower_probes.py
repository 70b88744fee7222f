"""What a pod answers whose ranks only follow."""

import httpx
import pytest
from fastapi.testclient import TestClient

from kaito_runtime.http.follower_probes import create_probes, serving_probes
from kaito_runtime.http.sockets import bind

WHERE = "this is rank 4 of 8; rank 0 serves, on many-0"


@pytest.mark.parametrize("path", ["/health", "/healthz", "/livez", "/readyz"])
def test_probes_succeed(path: str) -> None:
    assert TestClient(create_probes(WHERE)).get(path).text == "ok"


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/")])
def test_everything_else_is_503_with_the_node_that_serves(method: str, path: str) -> None:
    response = TestClient(create_probes(WHERE)).request(method, path)
    assert response.status_code == 503
    error = response.json()["error"]
    assert (error["message"], error["code"], error["type"]) == (WHERE, "not_the_first_rank", "server_error")


def test_a_thread_serves_them_until_the_block_ends() -> None:
    with bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        transport = httpx.HTTPTransport(retries=20)  # until the thread listens
        with serving_probes(bound, WHERE), httpx.Client(transport=transport) as client:
            assert client.get(f"http://127.0.0.1:{port}/livez").status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/livez")


def test_without_a_socket_another_rank_of_the_node_serves_them() -> None:
    with serving_probes(None, WHERE):
        pass
