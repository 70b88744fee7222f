"""Binds a port before the model loads, so that a port in use is reported at once."""

import socket

from kaito_runtime.errors import ServeError

__all__ = ["bind"]


def bind(host: str, port: int) -> socket.socket:
    """Returns a socket that is bound to an address and does not listen yet.

    Raises:
        ServeError: The address is in use, or not one of this machine.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ServeError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return bound
