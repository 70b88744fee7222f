"""The server starts under any uid: a container's mostly has no name, no home, and only a folder for temporary files."""

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from helpers.nameless import nameless
from kaito_runtime.testing.models import save_model

pytestmark = pytest.mark.slow  # processes start

HOMES = pytest.mark.parametrize("home", [None, "/"], ids=["no-home", "root-home"])


@HOMES
def test_the_server_answers(home: str | None, tmp_path: Path) -> None:
    model, scratch = save_model(tmp_path / "model", "llama"), tmp_path / "scratch"
    scratch.mkdir()
    arguments = ["serve", "--model", str(model), "--port", "0", "--cache-gib", "0.02"]
    command = [*nameless(home, scratch), sys.executable, "-m", "kaito_runtime", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            log = []
            for line in process.stderr:  # until it is ready or has ended
                log.append(line)
                if ready := re.search("ready: (http.*)", line):
                    break
            assert ready, "".join(log)
            body = {"model": "base", "prompt": "hello", "max_tokens": 4, "temperature": 0}
            answer = httpx.post(f"{ready[1]}/v1/completions", json=body, timeout=60).json()
            assert answer["usage"]["completion_tokens"] > 0
        finally:
            process.terminate()
            process.wait(60)
    assert not list(scratch.iterdir())


# Ahead of time, since there need not be a GPU. Triton writes what it has compiled below HOME, or compiles nothing.
COMPILE = """
from kaito_runtime import cli


@cli.app.command()
def compile():
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    @triton.jit
    def ones(x, N: tl.constexpr):
        tl.store(x + tl.arange(0, N), 1.0)

    source = ASTSource(fn=ones, signature={"x": "*fp32", "N": "constexpr"}, constexprs={(1,): 16})
    print("compiled", len(triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]))


cli.main()
"""


@HOMES
def test_the_servers_kernels_are_compiled(home: str | None, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    (tmp_path / "program.py").write_text(COMPILE)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [*nameless(home, scratch), sys.executable, str(tmp_path / "program.py"), "compile"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.startswith("compiled "), done.stderr
