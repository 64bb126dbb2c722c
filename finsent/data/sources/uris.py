"""URIs of sources: their parts as ingest reads them, and no secrets in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

OPTIONS = ("endpoint_override", "scheme", "region", "anonymous")  # none of them is a secret

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?]*)(.*)", re.DOTALL)
_HUBS = ("hf", "kaggle")
_BUCKETS = ("s3", "gs", "gcs")  # a login is one of the two halves of a key


@dataclass(frozen=True)
class Uri:
    """The parts of `scheme://login@host/path?options`.

    `?` and `#` in a path are what they look like: signs of a glob or a name. Only `?name=value`
    at the end is options.
    """

    scheme: str  # in lower case
    login: str
    host: str  # the bucket, where there are buckets
    path: str  # as written: "/..." or empty
    query: str

    @property
    def options(self) -> dict[str, str]:
        """What stands behind the last `?`."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    @property
    def root(self) -> str:
        """All that stands before the path."""
        return f"{self.scheme}://{self.login}{'@' if self.login else ''}{self.host}"

    @property
    def tail(self) -> str:
        """All that stands behind it."""
        return f"?{self.query}" if self.query else ""

    @property
    def shown(self) -> str:
        """Without login and options, for messages and manifests."""
        return f"{self.scheme}://{self.host}{self.path}"


def parse(uri: str) -> Uri | None:
    """A URI's parts; None for a local path."""
    found = _URI.fullmatch(uri)
    if found is None:
        return None
    scheme, where, rest = found.groups()
    path, _, query = rest.rpartition("?")
    if "=" not in query or "?" not in rest:
        path, query = rest, ""
    login, _, host = where.rpartition("@")
    return Uri(scheme.lower(), login, host, path, query)


def refuse_secrets(uri: str) -> None:
    """Refuse what would carry a secret into manifests and logs, without saying it.

    Raises:
        ValueError: the URI has a password, or an option that is not known to be harmless.
    """
    parts = parse(uri)
    if parts is None:
        return
    # A secret may hold a slash, before which the host then seems to end.
    cut = ":" in parts.host and not parts.host.rpartition(":")[2].isdigit()
    hidden = ":" in parts.login or (parts.login and parts.scheme in _BUCKETS)
    if hidden or (cut and parts.scheme not in _HUBS):
        raise ValueError(
            "the URI holds credentials, which would stand in every manifest; leave them out and "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, or "
            "what else the store takes from the environment"
        )
    if not parts.options.keys() <= {*OPTIONS} or re.search(r"\?[^/?]*=", parts.path):
        raise ValueError(
            f"the URI has other options than {', '.join(OPTIONS)}; leave them out: they would "
            "stand in every manifest, and credentials belong into the environment"
        )
