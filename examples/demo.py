"""The demo: serves examples/smollm2-with-adapters.yaml with `kaito up`, and asks several mixes of adapters the same.

It needs no cluster, no GPU and no network. `make demo` runs it. With --keep the server stays up afterwards.
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
    """Returns the mixes: for each heading of a row, the fields of the request.

    Args:
        adapters: Declared strength by adapter name.
    """
    rows: dict[str, dict[str, Any]] = {"base": {"model": "base"}}
    for name in adapters:
        for strength in (0.5, 1.0):
            rows[f"{name} at {strength:g}"] = {"adapters": [{"name": name, "strength": strength}]}
    declared = ", ".join(f"{name} {strength:g}" for name, strength in adapters.items())
    rows[f"the Workspace's own mix ({declared})"] = {}
    own = [{"name": name, "strength": 1.5 if i == 0 else -0.5} for i, name in enumerate(adapters)]
    shown = ", ".join(f"{adapter['name']} {adapter['strength']:g}" for adapter in own)
    rows[f"a request's own strengths ({shown})"] = {"adapters": own}
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
    """Returns the answers as a table, with a row for each mix and a column for each question."""
    title = f"One model, {len(answers)} mixes of adapters in one batch"
    grid = Table("strengths", *QUESTIONS, box=box.ROUNDED, show_lines=True, title=title)
    for heading, texts in answers.items():
        grid.add_row(heading, *texts)
    return grid


def demonstrate(url: str) -> list[str]:
    """Asks the questions, prints the answers, and returns what is wrong with them."""
    with httpx.Client(base_url=url, timeout=600) as client:
        cards = client.get("/v1/models").raise_for_status().json()["data"]
        adapters = {row["name"]: row["strength"] for row in client.get("/v1/adapters").json()["data"]}
        rows = variants(adapters)
        # All at the same time: requests with different adapters share batches.
        with ThreadPoolExecutor(len(rows) * len(QUESTIONS)) as pool:
            futures = {
                heading: [pool.submit(ask, client, cards[0]["id"], question, fields) for question in QUESTIONS]
                for heading, fields in rows.items()
            }
            answers = {heading: [future.result() for future in asked] for heading, asked in futures.items()}
        zero = [{"name": name, "strength": 0} for name in adapters]
        at_zero = ask(client, cards[0]["id"], QUESTIONS[0], {"adapters": zero})
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print("model ids: " + ", ".join(card["id"] for card in cards), highlight=False)
    console.print(table(answers))
    base = answers.pop("base")
    faults = [] if at_zero == base[0] else ["at strength 0 the answer is not that of the base model"]
    return faults + [f"'{heading}' answers like the base model" for heading, texts in answers.items() if texts == base]


def main() -> int:
    """Runs the demo and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="print a curl command, and serve until Ctrl-C")
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
