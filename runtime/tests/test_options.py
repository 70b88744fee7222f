import pytest

from kaito_runtime.errors import ServeError
from kaito_runtime.options import ALONE, Ranks


def test_ranks_are_what_torchrun_says() -> None:
    environ = {
        "WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1", "GROUP_RANK": "1", "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "many-0", "MASTER_PORT": "1",
    }  # fmt: skip
    ranks = Ranks.from_env(environ)
    assert ranks == Ranks(rank=5, size=8, local_rank=1, node=1, nodes=2)
    assert not ranks.leads
    assert Ranks.from_env({}) is Ranks.from_env({"WORLD_SIZE": "1"}) is ALONE
    with pytest.raises(ServeError, match="WORLD_SIZE is 8, but RANK, MASTER_ADDR is not set"):
        Ranks.from_env({k: v for k, v in environ.items() if k not in ("RANK", "MASTER_ADDR")})
