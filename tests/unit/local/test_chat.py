"""`kaito chat` with servers that answer, refuse, fail half-way, or are not model servers."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner

from kaito_core.cli.app import app
from kaito_core.errors import ConfigError
from kaito_core.local.chat import chat

MODELS = (200, "application/json", json.dumps({"data": [{"id": "tiny"}]}))
EVENTS = "text/event-stream"


def events(*bodies: object) -> str:
    return "".join(f"data: {body if isinstance(body, str) else json.dumps(body)}\n\n" for body in bodies)


def piece(text: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}]}


END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
ANSWER = (200, EVENTS, events(piece("Hel"), piece("lo"), END, {"choices": []}, "[DONE]"))
REFUSAL = (404, "application/json", json.dumps({"error": {"message": "model 'nope' does not exist, known: tiny"}}))


class Server:
    """Answers with what a test gives it.

    Attributes:
        asked: Bodies of the requests for an answer.
        paths: Paths of all requests.
        keys: Their Authorization headers.
    """

    def __init__(self) -> None:
        self.models = MODELS
        self.answers: list[tuple[int, str, str]] = []
        self.asked: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self.url = ""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    with _listening(made):
        yield made


@contextmanager
def _listening(server: Server) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(*server.models)

        def do_POST(self) -> None:
            server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._send(*server.answers.pop(0))

        def _send(self, status: int, kind: str, body: str) -> None:
            server.paths.append(self.path)
            server.keys.append(self.headers["Authorization"])
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Prints nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        server.url = f"http://127.0.0.1:{listening.server_port}"
        yield
        listening.shutdown()


def test_one_prompt_is_answered_by_the_first_model(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers = [ANSWER]
    chat(server.url, "", {"pirate": "0.5"}, "hi")
    assert capsys.readouterr().out == "Hello\n"
    (body,) = server.asked
    assert body["model"] == "tiny" and body["adapters"] == [{"name": "pirate", "strength": 0.5}]


def test_a_refusal_is_the_servers_own_sentence(server: Server) -> None:
    server.answers = [REFUSAL]
    with pytest.raises(ConfigError, match=r"^model 'nope' does not exist, known: tiny$"):
        chat(server.url, "nope", None, "hi")


def test_an_error_in_the_middle_of_an_answer_is_one(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers = [(200, EVENTS, events(piece("Hel"), {"error": {"message": "the engine has stopped"}}))]
    with pytest.raises(ConfigError, match=r"^the engine has stopped$"):
        chat(server.url, "tiny", None, "hi")
    assert capsys.readouterr().out == "Hel\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, "text/html", "<html>"), "does not answer with a stream of events"),
        ((200, EVENTS, "data: {\n\n"), "does not answer with a stream of events"),
        ((502, "text/html", "<html>bad gateway"), "answers 502: <html>bad gateway"),
        ((500, "application/json", '{"error": "out of memory"}'), "^out of memory$"),
    ],
)
def test_a_server_that_does_not_stream_answers_is_named(
    answer: tuple[int, str, str], words: str, server: Server
) -> None:
    server.answers = [answer]
    with pytest.raises(ConfigError, match=words):
        chat(server.url, "tiny", None, "hi")


@pytest.mark.parametrize("models", ['{"data": []}', "[]", "<html>", '{"data": [{}]}'])
def test_a_server_without_models_is_named(models: str, server: Server) -> None:
    server.models = (200, "application/json", models)
    with pytest.raises(ConfigError, match=r"does not list models at /v1/models"):
        chat(server.url, "", None, "hi")


@pytest.mark.parametrize("form", ["{}/v1", "{}/v1/", "{}/"])
def test_a_url_may_end_as_openais_clients_want_it(
    form: str, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [ANSWER]
    chat(form.format(server.url), "", None, "hi")
    assert server.paths == ["/v1/models", "/v1/chat/completions"]


def test_a_url_may_lack_its_scheme(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers = [ANSWER]
    chat(server.url.removeprefix("http://"), "", None, "hi")
    assert capsys.readouterr().out == "Hello\n"


def test_nothing_listens() -> None:
    with pytest.raises(ConfigError, match=r"nothing answers at http://127\.0\.0\.1:9/? .*kaito up"):
        chat("http://127.0.0.1:9", "", None, "hi")


def test_a_chat_goes_on_after_a_refusal_with_what_was_said_before(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(["one", "two", "", "three"])

    def typed(_: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", typed)
    server.answers = [ANSWER, REFUSAL, ANSWER]
    chat(server.url, "tiny", None, "")
    printed = capsys.readouterr()
    assert printed.out == "Hello\nHello\n\n"
    assert printed.err == "model 'nope' does not exist, known: tiny\n"
    assert [message["content"] for message in server.asked[-1]["messages"]] == ["one", "Hello", "three"]


def test_a_strength_that_is_not_a_number_names_its_adapter(server: Server) -> None:
    with pytest.raises(ConfigError, match=r"^--adapter pirate: .*'much'"):
        chat(server.url, "tiny", {"pirate": "much"}, "hi")


def test_a_stream_that_just_ends_is_an_error(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers = [(200, EVENTS, events(piece("Hel")))]
    with pytest.raises(ConfigError, match="ended the stream before the answer was complete"):
        chat(server.url, "tiny", None, "hi")
    assert capsys.readouterr().out == "Hel\n"


def test_every_request_carries_the_key(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers = [ANSWER]
    chat(server.url, "", None, "hi", api_key="sesame")
    assert server.keys == ["Bearer sesame"] * 2


def test_ctrl_c_ends_the_answer_and_not_the_talk(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed: list[Any] = ["one", KeyboardInterrupt(), "two", EOFError()]

    def read(_: str) -> str:
        if isinstance(item := typed.pop(0), BaseException):
            raise item
        return str(item)

    shown: list[str] = []

    def show(*parts: str, **options: Any) -> None:
        shown.extend(parts)
        if parts == ("lo",) and shown.count("lo") == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr("builtins.print", show)
    server.answers = [ANSWER, ANSWER]
    chat(server.url, "tiny", None, "")
    assert [message["content"] for message in server.asked[-1]["messages"]] == ["one", "Hel", "two"]


@pytest.mark.parametrize(
    ("prompt", "piped", "asked"),
    [("Sum up:", "a text\n", "Sum up:\n\na text"), ("-", "a text", "a text"), ("hi", "", "hi")],
)
def test_what_is_piped_in_is_part_of_the_prompt(prompt: str, piped: str, asked: str, server: Server) -> None:
    server.answers = [ANSWER]
    result = CliRunner().invoke(app, ["chat", "--url", server.url, "-p", prompt], input=piped)
    assert result.output == "Hello\n", result
    assert server.asked[0]["messages"][0]["content"] == asked
