"""The demo: serves examples/smollm2-with-adapters.yaml with `kaito up` and asks every mix the same questions.

It needs no cluster, no GPU and no network. `make demo` runs it; with --keep it stays up afterwards.
"""

import argparse
import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from rich import box
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
WORKSPACE = HERE / "smollm2-with-adapters.yaml"
MAX_TOKENS = 60
QUESTIONS = ("What is the moon?", "How do I make a cup of tea?", "Why do birds sing?")


def variants(adapters: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Returns what is asked, as fields of the request, by the heading of its row.

    Args:
        adapters: Declared strength by adapter name.
    """
    rows: dict[str, dict[str, Any]] = {"base": {"model": "base"}}
    for name in adapters:
        for strength in (0.5, 1.0):
            rows[f"{name} at {strength:g}"] = {"adapters": [{"name": name, "strength": strength}]}
    declared = ", ".join(f"{name} {strength:g}" for name, strength in adapters.items())
    rows[f"the Workspace's own mix ({declared})"] = {}
    others = [{"name": name, "strength": 1.5 if i == 0 else -0.5} for i, name in enumerate(adapters)]
    asked = ", ".join(f"{other['name']} {other['strength']:g}" for other in others)
    rows[f"a request's own strengths ({asked})"] = {"adapters": others}
    return rows


def ask(client: httpx.Client, model: str, question: str, fields: dict[str, Any]) -> str:
    """Returns the answer to one question."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        **fields,
    }
    answer = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    return str(answer["choices"][0]["message"]["content"]).strip()


def table(answers: dict[str, list[str]]) -> Table:
    """Returns the answers, a row for each mix and a column for each question."""
    grid = Table("strengths", *QUESTIONS, box=box.ROUNDED, show_lines=True, title="One batch, one model, seven mixes")
    for heading, texts in answers.items():
        grid.add_row(heading, *texts)
    return grid


def demonstrate(url: str) -> list[str]:
    """Asks, prints the table, and returns what is wrong with the answers."""
    with httpx.Client(base_url=url, timeout=600) as client:
        cards = client.get("/v1/models").raise_for_status().json()["data"]
        adapters = {row["name"]: row["strength"] for row in client.get("/v1/adapters").json()["data"]}
        rows = variants(adapters)
        # All at once: requests with different adapters share the batches of one model.
        with ThreadPoolExecutor(len(rows) * len(QUESTIONS)) as pool:
            futures = {
                heading: [pool.submit(ask, client, cards[0]["id"], question, fields) for question in QUESTIONS]
                for heading, fields in rows.items()
            }
            answers = {heading: [future.result() for future in asked] for heading, asked in futures.items()}
        zero = [{"name": name, "strength": 0} for name in adapters]
        silent = ask(client, cards[0]["id"], QUESTIONS[0], {"adapters": zero})
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print("model ids: " + ", ".join(card["id"] for card in cards), highlight=False)
    console.print(table(answers))
    faults = [] if silent == answers["base"][0] else ["strength 0 does not answer as the base model does"]
    faults += [f"'{heading}' answers as the base model" for heading in answers if _same(answers, heading)]
    return faults


def _same(answers: dict[str, list[str]], heading: str) -> bool:
    return heading != "base" and answers[heading] == answers["base"]


def main() -> int:
    """Runs the demo and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="stay up until Ctrl-C and print a curl line")
    parser.add_argument("--port", type=int, default=0, help="port of the API; 0 picks a free one")
    options = parser.parse_args()
    command = [sys.executable, "-m", "kaito_core.cli", "up", str(WORKSPACE), "--port", str(options.port)]
    print("$ kaito", *command[3:], flush=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            ready = next((line for line in server.stdout if line.startswith("ready: ")), None)
            if ready is None:
                return server.wait() or 1
            url = ready.removeprefix("ready: ").strip()
            if faults := demonstrate(url):
                print("DEMO FAILED:", "; ".join(faults))
                return 1
            print("DEMO OK", flush=True)
            if options.keep:
                body = json.dumps({"model": "base", "messages": [{"role": "user", "content": QUESTIONS[0]}]})
                print(f"curl {url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'", flush=True)
                server.wait()
            return 0
        except KeyboardInterrupt:
            return 0
        finally:
            server.send_signal(signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
