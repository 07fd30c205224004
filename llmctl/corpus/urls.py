"""Rules for the addresses that documents come from: domains and phrases that are not wanted.

Penedo et al. 2023 (RefinedWeb, arXiv 2306.01116, appendix G.1), whose lists are not shipped: any list of domains a line will do.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from llmctl.errors import UserError
from llmctl.recipe.filter_schema import FilterTable

FEWEST_SUSPECT = 2  # different words


@lru_cache(maxsize=4)
def read_domains(file: str) -> frozenset[str]:
    """Domains of a file, one a line, in lower case; what follows a # is no domain.

    Raises:
        UserError: it cannot be read.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: no list of domains: {error}") from None
    found = (line.split("#")[0].strip().lower().strip(".") for line in lines)
    return frozenset(domain for domain in found if domain)


def broken_rules(urls: list[str], table: FilterTable) -> Iterator[tuple[str, np.ndarray]]:
    """Rules of the table about addresses, each with how much of it every document's address has; 0: it may pass."""
    if table.blocked_domains:
        domains = frozenset().union(*map(read_domains, table.blocked_domains))
        yield "blocked_domains", np.array([bool(domains.intersection(domains_of(url))) for url in urls], dtype=float)
    lower = [url.lower() for url in urls]
    if table.blocked_url_phrases:
        yield "blocked_url_phrases", np.array([sum(p in url for p in table.blocked_url_phrases) for url in lower], dtype=float)
    if table.suspect_url_words:
        suspect = frozenset(table.suspect_url_words)
        found = np.array([len(suspect.intersection(re.split(r"[\W_]+", url))) for url in lower], dtype=float)
        yield "suspect_url_words", np.where(found < FEWEST_SUSPECT, 0, found)


def domains_of(url: str) -> list[str]:
    """The host of an address and the domains above it: `a.b.org`, `b.org`, `org`."""
    try:
        host = urlsplit(url if "://" in url else f"//{url}").hostname or ""
    except ValueError:
        return []
    parts = host.strip(".").split(".")
    return [".".join(parts[place:]) for place in range(len(parts))]
