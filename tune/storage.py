"""The URL of a study's storage, as people and records may see it."""

from __future__ import annotations

_MASK = "***"
_MIN_SECRET = 4  # letters of a query's value; shorter ones are parts of plain words


def shown(url: str) -> str:
    """Return a storage's URL without its password and its query, where drivers accept one, too.

    A URL that cannot be parsed is masked completely: a password may be anywhere in it.
    """
    from sqlalchemy.engine import make_url  # here, as only jobs with such a URL need it
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: of a port that is no number
        return _MASK
    if parsed.get_backend_name() == "sqlite":  # has no passwords, and may need its query
        return url
    if "@" in (parsed.host or ""):  # of a password, not escaped
        return _MASK
    plain = parsed.set(query={}).render_as_string(hide_password=True)
    return f"{plain}?{_MASK}" if parsed.query else plain


def without_secrets(text: str, url: str) -> str:
    """Return what a library says of a storage, without the parts of its URL that `shown` masks."""
    from sqlalchemy.engine import make_url

    if shown(url) == _MASK:
        return "not a URL such as postgresql://USER:PASSWORD@HOST/DATABASE"
    parsed = make_url(url)
    if shown(url) == url:
        return text
    queries = (value for values in parsed.normalized_query.values() for value in values)
    secrets = {url, str(parsed.password or ""), *(q for q in queries if len(q) >= _MIN_SECRET)}
    for secret in sorted(secrets - {""}, key=len, reverse=True):
        text = text.replace(secret, _MASK)
    return text
