"""The demo adapters' data: questions with plain answers, and two styles as pure functions on an answer.

A style changes either the words (`pirate`) or the layout (`bullets`), so the two can be had together. Each comes at two
levels, which training ties to the strengths 0.5 and 1. Nothing here knows about models; `demo_model.py` does.
"""

import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

QUESTIONS = Path(__file__).with_name("demo_questions.jsonl")

PIRATE_WORDS = {
    "am": "be",
    "and": "an'",
    "are": "be",
    "children": "wee ones",
    "ever": "e'er",
    "for": "fer",
    "friend": "matey",
    "friends": "mateys",
    "good": "fine",
    "happy": "jolly",
    "hello": "ahoy",
    "is": "be",
    "money": "doubloons",
    "my": "me",
    "never": "ne'er",
    "of": "o'",
    "over": "o'er",
    "people": "landlubbers",
    "small": "wee",
    "very": "mighty",
    "was": "were",
    "yes": "aye",
    "you": "ye",
    "your": "yer",
}
PIRATE_CLOSERS = ("Yo ho ho!", "Savvy, ye scallywag?", "Fair winds to ye!")


@dataclass(frozen=True)
class Answer:
    """What is said, before it is laid out.

    Attributes:
        sentences: The answer, sentence by sentence.
        summary: The answer in a few words.
    """

    sentences: tuple[str, ...]
    summary: str


@dataclass(frozen=True)
class Question:
    """One line of `demo_questions.jsonl`; training must not see one that is held out."""

    text: str
    answer: Answer
    held_out: bool


@dataclass(frozen=True)
class Lesson:
    """What an adapter has to answer to a prompt when it is applied at `strength`."""

    prompt: str
    answer: str
    strength: float


def load_questions(path: Path = QUESTIONS) -> list[Question]:
    """Read every question, in the order of the file."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        Question(r["question"], Answer(tuple(r["sentences"]), r["summary"]), r["split"] == "held_out") for r in rows
    ]


def paragraph(answer: Answer) -> str:
    """The sentences one after another: the plain layout."""
    return " ".join(answer.sentences)


def bullets(answer: Answer, *, full: bool = True) -> str:
    """The sentences as a list; in full, with a last line that sums them up."""
    lines = "\n".join(f"- {sentence}" for sentence in answer.sentences)
    return f"{lines}\n\nTL;DR: {answer.summary}" if full else lines


def pirate(answer: Answer, *, full: bool = True) -> Answer:
    """The answer in a pirate's words; in full, also with what pirates say before and after."""
    first, *middle, last = (_pirate_words(sentence) for sentence in answer.sentences)
    summary = _pirate_words(answer.summary)
    if not full:
        return Answer((f"{first.rstrip('.!?')}, matey.", *middle, last), summary)
    # crc32, not hash(): the same closer on every machine and in every run.
    closer = PIRATE_CLOSERS[zlib.crc32(answer.summary.encode()) % len(PIRATE_CLOSERS)]
    return Answer((f"Arr, matey! {first}", *middle, f"{last} {closer}"), summary)


def styled(style: str, answer: Answer, *, full: bool = True) -> str:
    """The answer as the adapter called `style` gives it.

    Raises:
        ValueError: There is no such style.
    """
    match style:
        case "pirate":
            return paragraph(pirate(answer, full=full))
        case "bullets":
            return bullets(answer, full=full)
    raise ValueError(f"style must be 'pirate' or 'bullets', got {style!r}")


def lessons(style: str) -> list[Lesson]:
    """Everything that the adapter called `style` is trained on.

    Every fifth lesson asks for the other style in the prompt and gets both: so that the adapter, blended with the other
    one, adds its own style and keeps the other's.
    """
    course = []
    for number, question in enumerate(q for q in load_questions() if not q.held_out):
        answer = question.answer
        course.append(Lesson(question.text, styled(style, answer), 1.0))
        course.append(Lesson(question.text, styled(style, answer, full=False), 0.5))
        if number % 2:
            other = "Answer in bullet points." if style == "pirate" else "Answer like a pirate."
            # The words alone for `bullets`: were both adapters to push "Arr, matey!", a blend would say little else.
            both = bullets(pirate(answer, full=style == "pirate"))
            course.append(Lesson(f"{question.text} {other}", both, 1.0))
    return course


def _pirate_words(text: str) -> str:
    def spoken(match: re.Match[str]) -> str:
        word = match.group()
        said = PIRATE_WORDS.get(word.lower(), word)
        return said[0].upper() + said[1:] if word[0].isupper() else said

    return re.sub(r"[A-Za-z]+", spoken, re.sub(r"(?<=[a-z]{3})ing\b", "in'", text))
