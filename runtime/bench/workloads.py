"""The requests of the server's benchmark: clients, each with its requests in order, for whichever side answers."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["KINDS", "Request", "Strengths", "clients_of", "in_order", "tokens_of"]

STRENGTH = 0.7
KINDS = ("base", "one adapter", "both blended", "own strengths")
PROMPTS = (
    "The capital of France is",
    "Water boils at a temperature of",
    "Once upon a time, in a small village, there",
    "The three primary colours are",
    "To make a cup of tea, first",
    "A computer program is a list of",
    "The largest planet of the solar system is called",
    "In the morning, the farmer went out to",
)
Strengths = dict[str, float]


@dataclass(frozen=True)
class Request:
    """One request of a run."""

    prompt: str
    tokens: int
    strengths: Strengths


def clients_of(kind: str, count: int, adapters: Sequence[str], lengths: Sequence[int]) -> list[list[Request]]:
    """Returns the requests of each client, one for each answer length; each client begins with another length.

    All clients ask for the same number of tokens in all, so that none is left alone at the end.
    """
    return [
        [
            Request(PROMPTS[(client + turn) % len(PROMPTS)], lengths[(client + turn) % len(lengths)], strengths)
            for turn in range(len(lengths))
        ]
        for client, strengths in enumerate(_strengths(kind, count, adapters))
    ]


def in_order(clients: Sequence[Sequence[Request]]) -> list[Request]:
    """Returns all requests, the first ones of all clients first."""
    return list(itertools.chain.from_iterable(zip(*clients, strict=True)))


def tokens_of(clients: Sequence[Sequence[Request]]) -> int:
    """Returns the number of tokens asked for in all."""
    return sum(request.tokens for request in in_order(clients))


def _strengths(kind: str, count: int, adapters: Sequence[str]) -> list[Strengths]:
    first, second = adapters
    of_client: Callable[[int], Strengths] = {
        "base": lambda i: {},
        "one adapter": lambda i: {first: STRENGTH},
        "both blended": lambda i: {first: STRENGTH, second: STRENGTH / 2},
        "own strengths": lambda i: {first: 0.3 + 0.7 * i / count, second: 1.0 - 0.6 * i / count},
    }[kind]
    return [of_client(client) for client in range(count)]
