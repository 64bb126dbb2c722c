"""The URL of a study's storage, without secrets, for logs and records."""

from __future__ import annotations

_MASK = "***"
_MIN_SECRET = 4  # letters of a query's value; shorter ones are parts of plain words


def masked_url(url: str) -> str:
    """Return a storage's URL without its password and its query, in which drivers accept secrets.

    A URL that cannot be parsed is masked completely: a password may be anywhere in it.
    """
    # SQLAlchemy takes 0.2 s to import, and every job reads this module.
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: a port that is not a number
        return _MASK
    if parsed.get_backend_name() == "sqlite":  # has no password, and may need its query
        return url
    if "@" in (parsed.host or ""):  # part of a password that is not escaped
        return _MASK
    plain = parsed.set(query={}).render_as_string(hide_password=True)
    return f"{plain}?{_MASK}" if parsed.query else plain


def without_secrets(text: str, url: str) -> str:
    """Return a library's message about a storage without the parts that `masked_url` masks."""
    from sqlalchemy.engine import make_url  # see `masked_url`

    if masked_url(url) == _MASK:
        return "not a URL such as postgresql://USER:PASSWORD@HOST/DATABASE"
    parsed = make_url(url)
    if masked_url(url) == url:
        return text
    queries = (value for values in parsed.normalized_query.values() for value in values)
    secrets = {url, str(parsed.password or ""), *(q for q in queries if len(q) >= _MIN_SECRET)}
    for secret in sorted(secrets - {""}, key=len, reverse=True):
        text = text.replace(secret, _MASK)
    return text
