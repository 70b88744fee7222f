"""Training data of the demo adapters: questions with plain answers, and two styles as pure functions of an answer.

`pirate` changes the words and `bullets` the layout, so that both can be combined. Each style has two levels, which are
trained at the strengths 0.5 and 1. The model is in `demo_model.py`.
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
    """An answer before it is laid out.

    Attributes:
        sentences: The answer, sentence by sentence.
        summary: The answer in a few words, for the last line of a list.
    """

    sentences: tuple[str, ...]
    summary: str


@dataclass(frozen=True)
class Question:
    """One line of `demo_questions.jsonl`. Questions that are held out are not trained on."""

    text: str
    answer: Answer
    held_out: bool


@dataclass(frozen=True)
class Lesson:
    """The answer that an adapter must give to a prompt at a strength."""

    prompt: str
    answer: str
    strength: float


def load_questions(path: Path = QUESTIONS) -> list[Question]:
    """Returns the questions, in the order of the file."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        Question(r["question"], Answer(tuple(r["sentences"]), r["summary"]), r["split"] == "held_out") for r in rows
    ]


def paragraph(answer: Answer) -> str:
    """Returns the sentences of an answer as one paragraph, the plain layout."""
    return " ".join(answer.sentences)


def bullets(answer: Answer, *, full: bool = True) -> str:
    """Returns the sentences of an answer as a list; in full, with a summary as last line."""
    lines = "\n".join(f"- {sentence}" for sentence in answer.sentences)
    return f"{lines}\n\nTL;DR: {answer.summary}" if full else lines


def pirate(answer: Answer, *, full: bool = True) -> Answer:
    """Returns an answer in a pirate's words; in full, with a greeting and a closing phrase."""
    first, *middle, last = (_pirate_words(sentence) for sentence in answer.sentences)
    summary = _pirate_words(answer.summary)
    if not full:
        return Answer((f"{first.rstrip('.!?')}, matey.", *middle, last), summary)
    # crc32, since hash() of a string differs between runs.
    closer = PIRATE_CLOSERS[zlib.crc32(answer.summary.encode()) % len(PIRATE_CLOSERS)]
    return Answer((f"Arr, matey! {first}", *middle, f"{last} {closer}"), summary)


def styled(style: str, answer: Answer, *, full: bool = True) -> str:
    """Returns an answer in a style.

    Raises:
        ValueError: The style is unknown.
    """
    match style:
        case "pirate":
            return paragraph(pirate(answer, full=full))
        case "bullets":
            return bullets(answer, full=full)
    raise ValueError(f"style must be 'pirate' or 'bullets', got {style!r}")


def lessons(style: str) -> list[Lesson]:
    """Returns the lessons for the adapter of a style.

    One lesson in five asks for the other style in the prompt, and its answer has both: blended with the other adapter,
    this one must add its style and keep the other's.
    """
    course = []
    for number, question in enumerate(q for q in load_questions() if not q.held_out):
        answer = question.answer
        course.append(Lesson(question.text, styled(style, answer), 1.0))
        course.append(Lesson(question.text, styled(style, answer, full=False), 0.5))
        if number % 2:
            other = "Answer in bullet points." if style == "pirate" else "Answer like a pirate."
            # Without "Arr, matey!" for `bullets`: if both adapters were trained on it, a blend would repeat it.
            both = bullets(pirate(answer, full=style == "pirate"))
            course.append(Lesson(f"{question.text} {other}", both, 1.0))
    return course


def _pirate_words(text: str) -> str:
    def spoken(match: re.Match[str]) -> str:
        word = match.group()
        changed = PIRATE_WORDS.get(word.lower(), word)
        return changed[0].upper() + changed[1:] if word[0].isupper() else changed

    return re.sub(r"[A-Za-z]+", spoken, re.sub(r"(?<=[a-z]{3})ing\b", "in'", text))
