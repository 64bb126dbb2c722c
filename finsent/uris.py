"""URIs of sources: parsing, and refusal of secrets in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

OPTIONS = ("endpoint_override", "scheme", "region", "anonymous")  # allowed: no secrets

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?]*)(.*)", re.DOTALL)
_HUBS = ("hf", "kaggle")
_OBJECT_STORES = ("s3", "gs", "gcs", "az")  # their login is one of the two halves of a key


@dataclass(frozen=True)
class Uri:
    """The parts of `scheme://login@host/path?options`.

    `?` and `#` in a path are glob signs or parts of a name. Only `?name=value` at the end is a
    query of options.
    """

    scheme: str  # in lower case
    login: str
    host: str  # of an object store, the bucket
    path: str  # as written: "/..." or empty
    query: str

    @property
    def options(self) -> dict[str, str]:
        """Return the options of the query."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    @property
    def root(self) -> str:
        """Return scheme, login and host."""
        return f"{self.scheme}://{self.login}{'@' if self.login else ''}{self.host}"

    @property
    def tail(self) -> str:
        """Return the query with its `?`; empty where the URI has no query."""
        return f"?{self.query}" if self.query else ""

    @property
    def redacted(self) -> str:
        """Return the URI without login and options, for messages and manifests."""
        return f"{self.scheme}://{self.host}{self.path}"


def parse(uri: str) -> Uri | None:
    """Return a URI's parts; None for a local path."""
    match = _URI.fullmatch(uri)
    if match is None:
        return None
    scheme, authority, path_and_query = match.groups()
    path, _, query = path_and_query.rpartition("?")
    if "=" not in query or "?" not in path_and_query:
        path, query = path_and_query, ""
    login, _, host = authority.rpartition("@")
    return Uri(scheme.lower(), login, host, path, query)


def refuse_secrets(uri: str) -> None:
    """Refuse a URI that would write a secret into manifests and logs; the error hides the secret.

    Raises:
        ValueError: the URI has a password, or an option that is not in `OPTIONS`.
    """
    parts = parse(uri)
    if parts is None:
        return
    # A secret may contain a slash, and the host then seems to end before it.
    is_cut = ":" in parts.host and not parts.host.rpartition(":")[2].isdigit()
    has_secret = ":" in parts.login or (parts.login and parts.scheme in _OBJECT_STORES)
    if has_secret or (is_cut and parts.scheme not in _HUBS):
        raise ValueError(
            "the URI holds credentials, which every manifest would contain. Leave them out and "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, or "
            "another variable that the store reads."
        )
    if not parts.options.keys() <= {*OPTIONS} or re.search(r"\?[^/?]*=", parts.path):
        raise ValueError(
            f"the URI has other options than {', '.join(OPTIONS)}. Leave them out: they would "
            "be in every manifest, and credentials belong in the environment."
        )
