"""Logins for registries: what a docker config.json holds, and how a registry's challenge is answered. No requests here.

Source: https://distribution.github.io/distribution/spec/auth/token/
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

__all__ = ["DOCKER_HUB", "Challenge", "Login", "basic", "stored_login"]

Login = tuple[str, str]
"""User and password."""

DOCKER_HUB = "registry-1.docker.io"
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry asks of who sends no login, or a wrong one.

    Attributes:
        scheme: In lower case, "" where nothing is asked for.
        parameters: Those of the scheme.
    """

    scheme: str
    parameters: Mapping[str, str]

    @classmethod
    def parse(cls, header: str) -> "Challenge":
        """Returns what a WWW-Authenticate header says."""
        scheme, _, rest = header.partition(" ")
        return cls(scheme.lower(), dict(_PARAMETER.findall(rest)))

    @property
    def realm(self) -> str:
        """URL that gives tokens."""
        return self.parameters.get("realm", "")

    def token_url(self, repository: str, actions: str) -> str:
        """Returns the URL that gives a token for a repository; actions such as "pull,push"."""
        asked = {"scope": f"repository:{repository}:{actions}"}
        if "service" in self.parameters:
            asked["service"] = self.parameters["service"]
        return f"{self.realm}?{urlencode(asked)}"


def basic(login: Login) -> str:
    """Returns the Authorization header of a login."""
    return f"Basic {base64.b64encode(':'.join(login).encode()).decode()}"


def stored_login(config: str, host: str) -> Login | None:
    """Returns the login for a registry in a docker config.json, None where it has none.

    Raises:
        ValueError: It is no docker config.json.
    """
    try:
        entries = json.loads(config)["auths"]
        names = [host, f"https://{host}", f"https://{host}/v1/", f"https://{host}/v2/", f"http://{host}"]
        names += ["https://index.docker.io/v1/", "docker.io"] if host == DOCKER_HUB else []
        entry = next((entries[name] for name in names if name in entries), None)
        if entry is None:
            return None
        if "auth" in entry:
            user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
            return user, password
        return str(entry["username"]), str(entry["password"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError("it must be a docker config.json") from error
