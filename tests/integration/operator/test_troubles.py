"""docs/how-to/troubleshoot.md holds what the operator really says of each fault.

`KAITO_WRITE_DOCS=1 python -m pytest tests/integration/operator/test_troubles.py` writes the page anew.
"""

import os
import re
import textwrap
from pathlib import Path

import pytest

from scenarios.support.world import World, conditions
from scenarios.troubles import FAULTS, Trouble

_PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "troubleshoot.md"
_INTRODUCTION = """# Troubleshoot a Workspace

    kubectl get workspaces -o wide
    kubectl describe workspace NAME

The conditions say what is wrong: `ResourceReady` with the nodes, `InferenceReady` with the pods; `WorkspaceSucceeded`
sums them up, and so does `Ready`, under the name that other tools know. `False` means that somebody must act,
`Unknown` that the operator waits or tries again. Each change of a condition is one event. The messages below are the
operator's for a Workspace `w`; tests cause each fault and write this page.
"""


def _stable(text: str) -> str:
    """Returns a text without what differs between two runs: names of pods and NodeClaims, and times."""
    text = re.sub(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", text)
    text = re.sub(r"\bw-[0-9a-z]{6,10}-[0-9a-z]{5}\b", "w-POD", text)
    # The scheduler may have said something by the time of the event.
    text = re.sub(r"(Normal  WaitingForNodes: [^;\n]*); pod [^\n]*", r"\1", text)
    return re.sub(r"http://127\.0\.0\.1:\d+", "https://SERVER", text)


def _section(trouble: Trouble, world: World) -> str:
    """Returns what there is to say of a fault, as Markdown."""
    document = world.existing("workspaces", "w")
    # Other conditions follow sooner or later, and repeat it or only wait.
    found = (item for item in conditions(document).values() if item["type"] != "Ready")  # the summary's other name
    bad = [item for item in found if item["reason"] == trouble.reason]
    lines = [f"    {item['type']}={item['status']}  {item['reason']}: {item['message']}" for item in bad]

    def told() -> list[str]:
        return [
            f"    {event['type']}  {event['reason']}: {event['message']}"
            for event in world.events("w")
            if event["reason"] == trouble.reason
        ]

    events: list[str] = world.wait("the event", told)
    advice = textwrap.fill(trouble.advice, 120, break_long_words=False, break_on_hyphens=False)
    parts = [f"## {trouble.title}", "\n".join(lines), "Event:", "\n".join(dict.fromkeys(events)), advice]
    return _stable("\n\n".join(parts)).replace(f"{world.namespace}/", "default/")


def _documented() -> dict[str, str]:
    """Returns the sections of the page by title."""
    page = _PAGE.read_text() if _PAGE.exists() else ""
    sections = [f"## {text}".rstrip() for text in page.split("\n## ")[1:]]
    return {section.splitlines()[0].removeprefix("## "): section for section in sections}


def _write(title: str, section: str) -> None:
    sections = {**_documented(), title: section}
    known = [sections[trouble.title] for trouble in FAULTS if trouble.title in sections]
    _PAGE.write_text("\n\n".join([_INTRODUCTION.rstrip(), *known]) + "\n")


@pytest.mark.parametrize("trouble", FAULTS, ids=lambda trouble: trouble.title)
def test_the_page_says_what_the_operator_says(trouble: Trouble, world: World) -> None:
    world.start()
    trouble.cause(world)
    world.wait_reason("w", "WorkspaceSucceeded", trouble.reason)
    section = _section(trouble, world)
    if os.environ.get("KAITO_WRITE_DOCS"):
        _write(trouble.title, section)
    assert _documented().get(trouble.title) == section, "write the page anew: see the head of this file"


def test_the_page_has_these_faults_and_no_others() -> None:
    assert list(_documented()) == [trouble.title for trouble in FAULTS]
    assert _PAGE.read_text().startswith(_INTRODUCTION)
