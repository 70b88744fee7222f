import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from live import until

from kaito_runtime.engine import live_jobs, torch_engine
from kaito_runtime.engine.protocol import EngineStats, Job, Sampling, Token
from kaito_runtime.errors import AdapterLoadError, RequestError
from kaito_runtime.model.memory import BatchLimits
from kaito_runtime.testing.harness import GREEDY, LIMITS, Harness, running
from kaito_runtime.testing.models import load_fp32

PROMPT = [10, 20, 30]


@pytest.fixture(scope="module")
def harness(tiny_llama: Path, tiny_adapters: Path) -> Iterator[Harness]:
    with running(tiny_llama, end_tokens=()) as harness:
        harness.one = harness.load("one", tiny_adapters / "one")
        harness.two = harness.load("two", tiny_adapters / "two")
        yield harness


def references(harness: Harness) -> dict[str, int]:
    return {resident.name: resident.references for resident in harness.lora.bank.resident()}


def idle(harness: Harness) -> bool:
    stats = harness.engine.stats()
    return stats.running == stats.waiting == 0 and stats.cache_use == 0


def test_references_return_when_requests_end(harness: Harness) -> None:
    harness.answer(PROMPT, {harness.one: 1.0, harness.two: 1.0})
    assert references(harness) == {"one": 0, "two": 0}
    assert idle(harness)


def test_reader_that_leaves_cancels_its_job_alone(harness: Harness) -> None:
    async def run() -> list[Token]:
        left = harness.engine.submit(Job(PROMPT, 10**6, {harness.one: 1.0}, GREEDY))
        stays = harness.engine.submit(Job(PROMPT, 30, {}, GREEDY))
        await anext(left)
        assert references(harness)["one"] == 1
        left.cancel()
        left.cancel()
        with pytest.raises(StopAsyncIteration):
            await anext(left)
        return [token async for token in stays]

    assert len(harness.portal.call(run)) == 30
    until(lambda: references(harness)["one"] == 0 and idle(harness), "released")


def test_job_that_is_cancelled_before_it_started_is_forgotten(harness: Harness) -> None:
    async def run() -> None:
        harness.engine.submit(Job(PROMPT, 100, {harness.one: 1.0}, GREEDY)).cancel()

    harness.portal.call(run)
    until(lambda: references(harness)["one"] == 0 and idle(harness), "released")


def test_retired_version_serves_those_who_have_it(harness: Harness, tiny_adapters: Path) -> None:
    version = harness.load("late", tiny_adapters / "two")
    alone = harness.answer(PROMPT, {version: 0.7}, 40)

    async def run() -> list[int]:
        stream = harness.engine.submit(Job(PROMPT, 40, {version: 0.7}, GREEDY))
        first = await anext(stream)
        harness.engine.retire_adapter(version)
        return [first.id] + [token.id async for token in stream]

    assert harness.portal.call(run) == alone
    until(lambda: "late" not in references(harness), "unloaded")


def test_job_submitted_before_a_retirement_still_gets_its_version(harness: Harness, tiny_adapters: Path) -> None:
    version = harness.load("race", tiny_adapters / "one")

    async def run() -> int:
        stream = harness.engine.submit(Job(PROMPT, 5, {version: 1.0}, GREEDY))
        harness.engine.retire_adapter(version)
        return len([token async for token in stream])

    assert harness.portal.call(run) == 5


def test_adapters_load_while_requests_run(harness: Harness, tiny_adapters: Path) -> None:
    alone = harness.answer(PROMPT, {harness.two: 1.0}, 60)

    async def run() -> list[int]:
        stream = harness.engine.submit(Job(PROMPT, 60, {harness.two: 1.0}, GREEDY))
        first = await anext(stream)
        for _ in range(4):
            harness.engine.retire_adapter(await harness.engine.load_adapter("x", tiny_adapters / "one", None))
        return [first.id] + [token.id async for token in stream]

    assert harness.portal.call(run) == alone


def test_adapter_that_cannot_be_applied_is_refused_and_leaves_nothing(harness: Harness, tmp_path: Path) -> None:
    with pytest.raises(AdapterLoadError, match=r"'bad'.*adapter_config.json"):
        harness.load("bad", tmp_path)
    assert "bad" not in references(harness)


def test_finish_says_why(tiny_llama: Path, harness: Harness) -> None:
    end = harness.answer(PROMPT, {}, 3)[-1]
    with running(tiny_llama, end_tokens={end}) as other:
        tokens = other.tokens([Job(PROMPT, 3, {}, GREEDY), Job([9], 1, {}, GREEDY)])
        assert [token.finish for token in tokens[0]][-1] == "stop"
        assert tokens[0][-1].id == end
        assert [token.finish for token in tokens[1]] == ["length"]


def test_full_queue_refuses_and_recovers(tiny_llama: Path) -> None:
    limits = BatchLimits(cache_tokens=512, page_tokens=8, step_tokens=32, requests=2)
    with running(tiny_llama, limits, end_tokens=(), max_waiting=1) as harness:

        async def run() -> RequestError:
            streams = [harness.engine.submit(Job(PROMPT, 200, {}, GREEDY)) for _ in range(3)]
            with pytest.raises(RequestError) as caught:
                harness.engine.submit(Job(PROMPT, 1, {}, GREEDY))
            for stream in streams:
                stream.cancel()
            return caught.value

        error = harness.portal.call(run)
        assert (error.status, error.code, error.retry_after_seconds) == (429, "rate_limit_exceeded", 1)
        until(lambda: idle(harness), "idle")
        assert len(harness.answer(PROMPT, {}, 4)) == 4


def test_pass_that_raises_fails_its_requests_and_is_counted(harness: Harness) -> None:
    expected = harness.answer(PROMPT, {}, 4)
    before = harness.engine.stats().failures
    broken = harness.loaded.model.lm_head.register_forward_pre_hook(lambda *_: 1 / 0)
    for _ in range(2):
        with pytest.raises(RequestError, match="the model failed: ZeroDivisionError") as caught:
            harness.answer(PROMPT, {harness.one: 1.0})
        assert caught.value.status == 500
    stats = harness.engine.stats()
    assert (stats.failures - before, stats.failures_in_a_row) == (2, 2)
    assert references(harness)["one"] == 0
    broken.remove()
    assert harness.answer(PROMPT, {}, 4) == expected
    until(lambda: harness.engine.stats().failures_in_a_row == 0 and idle(harness), "well again")


def test_job_that_cannot_start_ends_with_an_error_and_the_engine_goes_on(harness: Harness, tiny_adapters: Path) -> None:
    gone = harness.load("gone", tiny_adapters / "one")
    harness.engine.retire_adapter(gone)
    with pytest.raises(RequestError, match="cannot start"):
        harness.answer(PROMPT, {harness.one: 1.0, gone: 1.0})
    assert references(harness)["one"] == 0
    assert len(harness.answer(PROMPT, {})) == 6
    assert idle(harness)


def test_work_that_raises_does_not_end_the_engine(harness: Harness) -> None:
    harness.engine.retire_adapter("never loaded")
    assert len(harness.answer(PROMPT, {})) == 6
    assert harness.engine.alive


def test_row_whose_logits_are_not_finite_fails_alone(harness: Harness) -> None:
    alone = harness.answer([9, 8], {}, 5)

    def spoil(module: Any, inputs: Any, output: Any) -> Any:
        hook[0].remove()
        output[0, 0] = float("nan")  # the row of the job that came first
        return output

    async def run() -> list[Any]:
        jobs = [Job(PROMPT, 5, {}, Sampling(seed=1)), Job([9, 8], 5, {}, GREEDY)]
        streams = [harness.engine.submit(job) for job in jobs]
        hook.append(harness.loaded.model.lm_head.register_forward_hook(spoil))
        with pytest.raises(RequestError, match="not finite"):
            await anext(streams[0])
        return [token.id async for token in streams[1]]

    hook: list[Any] = []
    harness.engine._worker.submit(lambda: time.sleep(0.2))  # so that both jobs are in the first pass
    assert harness.portal.call(run) == alone
    until(lambda: idle(harness), "released")


class BrokenGrammar:
    """Raises when the second token is to be chosen."""

    stuck = ""

    def __init__(self) -> None:
        self.pushed = 0

    def start(self) -> "BrokenGrammar":
        return BrokenGrammar()

    def allowed(self) -> bytes:
        if self.pushed:
            raise ValueError("a bug")
        return b"\xff" * 33

    def push(self, token: int) -> None:
        self.pushed += 1


def test_request_for_which_nothing_can_be_chosen_fails_alone_and_not_the_model(harness: Harness) -> None:
    alone = harness.answer([9, 8], {}, 5)
    before = harness.engine.stats().failures

    async def run() -> list[list[int] | str]:
        broken = Sampling(grammar=BrokenGrammar())
        jobs = [
            Job([9, 8], 5, {}, GREEDY),
            *[Job(PROMPT, 5, {harness.one: 1.0}, broken)] * 3,
            Job([9, 8], 5, {}, GREEDY),
        ]

        async def drain(stream: Any) -> list[int] | str:
            try:
                return [token.id async for token in stream]
            except RequestError as error:
                assert (error.status, error.code) == (500, "sampling_failed")
                return str(error)

        return list(await asyncio.gather(*(drain(harness.engine.submit(job)) for job in jobs)))

    assert harness.portal.call(run) == [alone, *["no token could be chosen: ValueError: a bug"] * 3, alone]
    stats = harness.engine.stats()
    assert (stats.failures - before, stats.failures_in_a_row) == (0, 0)
    assert references(harness)["one"] == 0
    until(lambda: idle(harness), "released")


def test_extremes_of_sampling_are_served_beside_others(harness: Harness) -> None:
    alone = harness.answer([9, 8], {}, 5)
    extremes = [
        Sampling(temperature=5e-324),
        Sampling(temperature=1e-40),
        Sampling(temperature=1e-6),
        Sampling(temperature=1e-5),
        Sampling(temperature=2.0, top_p=1e-9),
        Sampling(top_p=5e-324, top_k=2**70, min_p=1.0),
        Sampling(presence_penalty=-2.0, frequency_penalty=-2.0, logprobs=20),
        Sampling(logit_bias=dict.fromkeys(range(257), -100.0), seed=-(2**63)),
        Sampling(logit_bias={7: 100.0}, seed=2**63 - 1),
    ]
    tokens = harness.tokens([Job([9, 8], 5, {}, sampling) for sampling in (GREEDY, *extremes, GREEDY)])
    assert [len(each) for each in tokens] == [5] * len(tokens)
    chosen = [[token.id for token in each] for each in tokens]
    assert (
        chosen[0] == chosen[1] == chosen[2] == chosen[3] == chosen[4] == chosen[5] == chosen[6] == chosen[-1] == alone
    )
    assert harness.engine.stats().failures_in_a_row == 0


def test_gpu_that_is_lost_ends_the_engine_and_every_request(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = BatchLimits(cache_tokens=512, page_tokens=8, step_tokens=32, requests=1)
    with running(tiny_llama, limits, end_tokens=()) as harness:

        def fail(*_: Any) -> None:
            monkeypatch.setattr(
                torch_engine, "why_lost", lambda device: "AcceleratorError: CUDA error: device-side assert"
            )
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")

        async def run() -> list[str]:
            streams = [harness.engine.submit(Job(PROMPT, 50, {}, GREEDY)) for _ in range(2)]
            await anext(streams[0])
            harness.loaded.model.lm_head.register_forward_pre_hook(fail)
            errors = []
            for stream in streams:
                with pytest.raises(RequestError) as caught:
                    async for _ in stream:
                        pass
                errors.append(str(caught.value))
            with pytest.raises(RequestError, match="the engine has stopped"):
                harness.engine.submit(Job(PROMPT, 1, {}, GREEDY))
            return errors

        lost = "cpu no longer works: AcceleratorError: CUDA error: device-side assert"
        assert harness.portal.call(run) == [
            "the model failed: AcceleratorError: CUDA error: device-side assert triggered",
            f"the server is stopping: {lost}",
        ]
        assert harness.engine.lost == lost
        assert not harness.engine.alive


def test_error_of_a_gpu_that_still_works_is_one_of_the_pass_alone(harness: Harness) -> None:
    def fail(*_: Any) -> None:
        hook.remove()
        raise torch.AcceleratorError("CUDA error: invalid configuration argument")

    hook = harness.loaded.model.lm_head.register_forward_pre_hook(fail)
    with pytest.raises(RequestError, match="invalid configuration argument"):
        harness.answer(PROMPT, {})
    assert harness.engine.lost == ""
    assert len(harness.answer(PROMPT, {})) == 6


def test_load_that_loses_the_gpu_ends_the_engine(
    tiny_llama: Path, tiny_adapters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tiny_llama, LIMITS) as harness:
        monkeypatch.setattr(torch_engine, "why_lost", lambda device: "an illegal memory access")
        harness.load("one", tiny_adapters / "one")
        assert harness.engine.alive
        monkeypatch.setattr(harness.lora.bank, "load", lambda weights: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            harness.load("two", tiny_adapters / "two")
        assert harness.engine.lost == "cpu no longer works: an illegal memory access"


def test_stop_ends_what_runs_with_an_error(tiny_llama: Path) -> None:
    with running(tiny_llama, LIMITS, end_tokens=()) as harness:

        async def run() -> Any:
            stream = harness.engine.submit(Job(PROMPT, 10**6, {}, GREEDY))
            await anext(stream)
            await harness.engine.stop()
            with pytest.raises(RequestError, match="stopping"):
                while True:
                    await anext(stream)
            with pytest.raises(RequestError, match="stopped") as caught:
                harness.engine.submit(Job(PROMPT, 1, {}, GREEDY))
            return caught.value.status

        assert harness.portal.call(run) == 503
        assert not harness.engine.alive


def test_stats_show_what_runs(harness: Harness) -> None:
    async def run() -> EngineStats:
        streams = [
            harness.engine.submit(Job(PROMPT, 500, {version: 1.0}, Sampling(seed=1)))
            for version in (harness.one, harness.two)
        ]
        for stream in streams:
            await anext(stream)
        await asyncio.sleep(0.05)
        stats = harness.engine.stats()
        for stream in streams:
            stream.cancel()
        return stats

    stats = harness.portal.call(run)
    assert (stats.running, stats.waiting) == (2, 0)
    assert stats.running_adapters == ("one", "two")
    assert 0 < stats.cache_use < 1
    assert stats.resident_bytes["two"] > stats.resident_bytes["one"] > 0


def test_job_may_go_on_after_end_tokens(tiny_llama: Path, harness: Harness) -> None:
    free = harness.answer(PROMPT, {}, 8)
    with running(tiny_llama, end_tokens={free[2]}) as ending:
        assert ending.answer(PROMPT, {}, 8) == free[: free.index(free[2]) + 1]
        tokens = ending.tokens([Job(PROMPT, 8, {}, GREEDY, ignores_end=True)])[0]
    assert [token.id for token in tokens] == free
    assert tokens[-1].finish == "length"


def read_all(harness: Harness, jobs: list[Job]) -> list[tuple[list[Token], Any]]:
    """Returns the tokens of each job, and its prompt's."""

    async def drain(stream: Any) -> list[Token]:
        return [token async for token in stream]

    async def both() -> list[tuple[list[Token], Any]]:
        streams = [harness.engine.submit(job) for job in jobs]
        tokens = await asyncio.gather(*(drain(stream) for stream in streams))
        return [(each, stream.prompt) for each, stream in zip(tokens, streams, strict=True)]

    return harness.portal.call(both)


def test_prompts_come_with_log_probabilities_of_the_same_pass(harness: Harness, tiny_llama: Path) -> None:
    prompts = [[(7 * i) % 250 for i in range(100)], [5, 6, 7], [8]]  # the first takes several passes
    jobs = [Job(prompt, 3, {}, GREEDY, prompt_logprobs=2) for prompt in prompts]
    found = read_all(harness, [*jobs, Job([9, 8], 30, {harness.one: 1.0}, GREEDY)])
    assert found[-1][1] == ()
    for prompt, (tokens, scored) in zip(prompts, found, strict=False):
        assert [token.id for token in tokens] == harness.answer(prompt, {}, 3)
        assert [token.id for token in scored] == prompt
        assert (scored[0].logprob, scored[0].top) == (None, ())
        with torch.no_grad():
            truth = load_fp32(tiny_llama)(torch.tensor([prompt])).logits[0].log_softmax(-1)
        for place, token in enumerate(scored[1:]):
            assert token.logprob == pytest.approx(float(truth[place, token.id]), abs=1e-4)
            assert [one for one, _ in token.top] == truth[place].topk(2).indices.tolist()
            assert [value for _, value in token.top] == pytest.approx(truth[place].topk(2).values.tolist(), abs=1e-4)
    until(lambda: idle(harness), "released")


def test_prompt_alone_is_computed_with_its_adapters(harness: Harness) -> None:
    base, adapted, plain = read_all(
        harness,
        [
            Job(PROMPT, 0, {}, prompt_logprobs=0),
            Job(PROMPT, 0, {harness.two: 1.0}, prompt_logprobs=0),
            Job(PROMPT, 0, {harness.two: 1.0}),
        ],
    )
    assert [tokens for tokens, _ in (base, adapted, plain)] == [[], [], []]
    assert [token.id for token in base[1]] == [token.id for token in adapted[1]] == PROMPT
    assert base[1][1].logprob != pytest.approx(adapted[1][1].logprob, abs=1e-3)
    assert plain[1] == ()
    assert references(harness)["two"] == 0
    until(lambda: idle(harness), "released")


def test_prompt_that_cannot_be_scored_fails_alone(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = harness.answer([9, 8], {}, 5)
    monkeypatch.setattr(live_jobs, "score_tokens", lambda *_: 1 / 0)

    async def run() -> list[int]:
        bad = harness.engine.submit(Job(PROMPT, 5, {harness.one: 1.0}, GREEDY, prompt_logprobs=1))
        good = harness.engine.submit(Job([9, 8], 5, {}, GREEDY))
        with pytest.raises(RequestError, match="could not be scored: ZeroDivisionError") as caught:
            await anext(bad)
        assert caught.value.code == "scoring_failed"
        return [token.id async for token in good]

    assert harness.portal.call(run) == alone
    assert references(harness)["one"] == 0
    until(lambda: idle(harness), "released")


def test_prompt_whose_logits_are_not_finite_fails(harness: Harness) -> None:
    def spoil(module: Any, inputs: Any, output: Any) -> Any:
        hook.remove()
        return output * float("nan")

    hook = harness.loaded.model.lm_head.register_forward_hook(spoil)
    with pytest.raises(RequestError, match="not finite"):
        read_all(harness, [Job(PROMPT, 0, {}, prompt_logprobs=0)])
    assert harness.engine.stats().failures_in_a_row == 0
    until(lambda: idle(harness), "released")


def test_prompt_longer_than_the_cache_fails_alone_and_says_why(harness: Harness) -> None:
    with pytest.raises(RequestError, match="the prompt has 3000 tokens, the key-value cache holds 2048"):
        harness.answer([1] * 3000, {harness.one: 1.0})
    assert references(harness)["one"] == 0


def test_failed_stream_frees_its_job(harness: Harness) -> None:
    async def run() -> None:
        stream = harness.engine.submit(Job(PROMPT, 10**6, {harness.one: 1.0}, GREEDY))
        await anext(stream)
        stream.fail(RequestError("too slow", status=408))
        with pytest.raises(RequestError, match="too slow"):
            async for _ in stream:
                pass

    harness.portal.call(run)
    until(lambda: references(harness)["one"] == 0 and idle(harness), "released")


def test_requests_wait_for_the_pages_of_their_adapters_and_answer_as_alone(
    tiny_llama: Path, tiny_adapters: Path
) -> None:
    with running(tiny_llama, end_tokens=()) as harness:
        harness.lora.bank.resize(3)  # "one" takes a page, "two" takes two: of the five, at most three at once
        adapters = [harness.load(f"a{i}", tiny_adapters / ("one", "two")[i % 2]) for i in range(5)]
        alone = [harness.answer(PROMPT, {adapter: 0.5 + i}) for i, adapter in enumerate(adapters)]
        assert len({tuple(answer) for answer in alone}) > 1
        jobs = [Job(PROMPT, 6, {adapter: 0.5 + i}, GREEDY) for i, adapter in enumerate(adapters)] * 3
        base = harness.answer(PROMPT, {})
        jobs.append(Job(PROMPT, 6, {}, GREEDY))
        assert [[token.id for token in tokens] for tokens in harness.tokens(jobs)] == [*alone * 3, base]
        until(lambda: idle(harness), "released")
        assert 0 < sum(bool(r.nbytes) for r in harness.lora.bank.resident()) <= 3
        with pytest.raises(RequestError, match=r"need 4 pages.*'a1' 2, 'a3' 2.*has 3.*--adapter-memory") as no:
            harness.answer(PROMPT, {adapters[1]: 1.0, adapters[3]: 1.0})
        assert (no.value.status, no.value.code) == (400, "adapters_exceed_memory")
        assert harness.answer(PROMPT, {adapters[0]: 0.5}) == alone[0]
        assert set(references(harness).values()) == {0}
