"""Binding a port before anything slow happens."""

import socket

from kaito_runtime.errors import ServeError

__all__ = ["bind"]


def bind(host: str, port: int) -> socket.socket:
    """Returns a socket that has its address but does not listen yet: a port that is taken shows before the model loads.

    Raises:
        ServeError: The address cannot be had.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ServeError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return bound
