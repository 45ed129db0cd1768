"""Addresses to listen on, tried before anything is started on them."""

from __future__ import annotations

import socket

from context_plane.errors import Invalid


def check_address(host: str, port: int, options: str = "--port or --host") -> None:
    """Raises `Invalid(settings_invalid)` when the address is not of this machine, or somebody listens there already.
    `options`: of the command line, that choose another."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as the server binds it
                trial.bind(address)
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        detail = f"the address cannot be listened on: {said}; choose another with {options}"
        raise Invalid("settings_invalid", detail, host=host, port=port) from error
