"""`python -m tests.integration.clients` writes the calls into docs/clients.md."""

from tests.integration.clients.cases import DOCS, with_table

DOCS.write_text(with_table(DOCS.read_text(encoding="utf-8")), encoding="utf-8")
