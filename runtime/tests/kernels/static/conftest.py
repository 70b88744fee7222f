"""Static gates compile for real, in a process of their own. At the end comes a table of all figures, kept or not."""

import pytest

FIGURES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


@pytest.fixture
def table(request: pytest.FixtureRequest) -> list[str]:
    return request.config.stash[FIGURES]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash[FIGURES]
    if rows:
        terminalreporter.section("static figures of the kernels (compiled, not run)")
        terminalreporter.write_line(
            f"{'device':7}{'configuration':46}{'regs':>5}{'spill':>6}{'shared':>8}{'ctas':>5}  {'mma':6}{'eff':>6}"
            f"{'ins/mma':>8}{'async':>6}{'in flight':>10}  pdl"
        )
        for row in sorted(rows):
            terminalreporter.write_line(row)
