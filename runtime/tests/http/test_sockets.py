import pytest

from kaito_runtime.errors import ServeError
from kaito_runtime.http.sockets import bind


def test_address_that_cannot_be_had_is_named() -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            bind("127.0.0.1", port)
    with pytest.raises(ServeError, match=r"cannot listen on 203.0.113.1:80: "):
        bind("203.0.113.1", 80)
