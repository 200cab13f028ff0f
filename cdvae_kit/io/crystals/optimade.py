"""Structures that an OPTIMADE provider has: its pages, one after the other, cut into records.

`optimade://HOST/PATH?FILTER` stands for all structures of the provider at that base URL that fit the filter, which is
in the language of the standard (Andersen et al., Sci. Data 8, 217 (2021); www.optimade.org). The connection is secure
but to this machine itself, where servers are tried. A question is answered whole or refused.
"""

from __future__ import annotations

import json
import logging
import re
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from cdvae_kit.io.connections import AnswerError, BrokenConnectionError, LimitMetError, fetch
from cdvae_kit.io.crystals.json_tables import DEFAULT_ID_COLUMN, record_of_row
from cdvae_kit.io.crystals.limits import QueryLimits, current_max_bytes, current_query_limits
from cdvae_kit.io.crystals.records import ReadFailure, Record, UnreadableSourceError

logger = logging.getLogger(__name__)

_PAGE = 100
"""Structures a page: providers have to refuse more than they like, and most like this."""

_CRYSTAL_FIELDS = (
    *("lattice_vectors", "cartesian_site_positions", "species", "species_at_sites"),
    *("dimension_types", "structure_features"),
)
_LONGEST_FIELDS = 3000
_THIS_MACHINE = re.compile(r"localhost|127(\.\d{1,3}){3}|\[::1\]")
_RETRIES, _BACKOFF = 3, 1.0
_TOO_LARGE_A_PAGE = (400, 403, 422)


class Query(NamedTuple):
    """A question: the versioned base URL of the provider, and the filter, "" for all structures."""

    base: str
    filter: str


def parse_query(name: str) -> Query:
    """The question that `optimade://HOST/PATH?FILTER` stands for; `filter=`, as in an address, is taken too.

    >>> parse_query('optimade://example.org/optimade?elements HAS ALL "Na","Cl"')
    Query(base='https://example.org/optimade/v1', filter='elements HAS ALL "Na","Cl"')

    Raises:
        UnreadableSourceError: it stands for none.
    """
    place, _, asked = name.removeprefix("optimade://").partition("?")
    host, _, path = place.partition("/")
    if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?", host):
        raise UnreadableSourceError(
            f"is no question to a provider: expected optimade://HOST?FILTER or optimade://HOST/PATH?FILTER, got the "
            f"host {host!r}"
        )
    if asked.startswith("filter="):
        parts = dict(urllib.parse.parse_qsl(asked, keep_blank_values=True))
        asked = parts.pop("filter")
        if parts:
            raise UnreadableSourceError(
                f"is not understood: of an address's parameters only filter is taken, not {', '.join(sorted(parts))}"
            )
    path = urllib.parse.quote(path.rstrip("/").removesuffix("/structures"), safe="/%~")
    scheme = "http" if _THIS_MACHINE.fullmatch(re.sub(r":[0-9]+$", "", host)) else "https"
    base = f"{scheme}://{host}/{path}".rstrip("/")
    return Query(base if re.search(r"/v\d+(\.\d+){0,2}$", base) else f"{base}/v1", asked.strip())


def query_records(
    name: str,
    id_column: str = DEFAULT_ID_COLUMN,
    *,
    max_bytes: int | None = None,
    limits: QueryLimits | None = None,
) -> Iterator[Record | ReadFailure]:
    """The records of a question, one a structure: names are the provider's ids, its own numbers are properties.

    Args:
        name: `optimade://HOST/PATH?FILTER`, see `parse_query`.
        id_column: the column of the names, where the attributes have one.
        max_bytes: of all answers together; by default what a `bytes_limit` block says.
        limits: of the rest; by default those of a `query_limits` block.

    Raises:
        UnreadableSourceError: there is no server, or none of OPTIMADE; it says no; nothing fits the filter; a limit
            is met.
    """
    query = parse_query(name)
    session = _Session(
        current_max_bytes() if max_bytes is None else max_bytes, current_query_limits() if limits is None else limits
    )
    return _records(query, session, name, id_column)


def _records(query: Query, session: _Session, name: str, id_column: str) -> Iterator[Record | ReadFailure]:
    number = 0
    page, url = session.first_page(query)
    seen = {url}
    expected = _count(page)
    while True:
        if expected > session.limits.max_records:
            raise session.too_many(f"the provider has {expected} structures that fit")
        rows = page.get("data")
        if not isinstance(rows, list):
            raise UnreadableSourceError(f"is no OPTIMADE server: {url} holds no list of data; {_ADVICE}")
        for row in rows:
            number += 1
            if number > session.limits.max_records:
                raise session.too_many("more structures came")
            yield record_of_row(row, name, f"structure {number}", f"structure-{number}", id_column)
        logger.info("%s: %d structures", name, number)
        link = _next_link(page, url)
        if link is None:
            break
        if link in seen:
            raise UnreadableSourceError(f"is not understood: the pages go round in a circle, back to {link}")
        seen.add(link)
        page, url = session.page(link)
    if not number:
        raise UnreadableSourceError(f"holds no structure that fits the filter {query.filter!r}")
    has_more = _table(page.get("meta")).get("more_data_available")
    if has_more is not False and (has_more or number < expected):
        reason = f"there is no link to more than {number} structures, though the provider says that there are more"
        yield ReadFailure(name, f"after structure {number}", reason)


class _Session:
    """What is left of the limits while a question is answered."""

    def __init__(self, max_bytes: int, limits: QueryLimits) -> None:
        self.max_bytes = max_bytes
        self.limits = limits
        self._bytes_left = max_bytes
        self._end = time.monotonic() + limits.max_seconds

    def too_many(self, what: str) -> UnreadableSourceError:
        return UnreadableSourceError(
            f"holds too much: {what}, at most {self.limits.max_records} are taken (max_records); narrow the filter, or "
            "raise the limit"
        )

    def first_page(self, query: Query) -> tuple[Mapping[str, Any], str]:
        """The first page, as large as the provider lets it be, and its address."""
        wanted = {"filter": query.filter} if query.filter else {}
        fields = self._fields(query)
        if fields:
            wanted["response_fields"] = fields
        try:
            return self._ask(_address(query, {**wanted, "page_limit": str(_PAGE)}))
        except AnswerError as error:
            if error.status not in _TOO_LARGE_A_PAGE:
                raise _refusal(error, query.base) from error
        return self.page(_address(query, wanted))

    def page(self, url: str) -> tuple[Mapping[str, Any], str]:
        """The page at this address, and the address after redirections."""
        try:
            return self._ask(url)
        except AnswerError as error:
            raise _refusal(error, url) from error

    def _fields(self, query: Query) -> str:
        """What to ask of each structure: the crystal, and the provider's own numbers; "" where it does not say."""
        try:
            about, _ = self._ask(f"{query.base}/info/structures")
        except (AnswerError, _NoPageError):
            return ""
        properties = _table(_table(about.get("data")).get("properties"))
        own = [key for key, entry in properties.items() if key.startswith("_") and _is_number(_table(entry))]
        fields = ",".join([*_CRYSTAL_FIELDS, *own])
        return fields if len(fields) <= _LONGEST_FIELDS else ""

    def _ask(self, url: str) -> tuple[Mapping[str, Any], str]:
        left = self._end - time.monotonic()
        try:
            body, url = fetch(url, max_bytes=self._bytes_left, seconds=left, retries=_RETRIES, backoff=_BACKOFF)
        except LimitMetError as error:
            raise self._met(error.limit) from error
        except BrokenConnectionError as error:
            raise UnreadableSourceError(f"cannot be reached: {url}: {error}") from error
        self._bytes_left -= len(body)
        try:
            page = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _NoPageError(f"is no OPTIMADE server: {url} is not JSON ({error}); {_ADVICE}") from error
        if not isinstance(page, Mapping):
            raise _NoPageError(f"is no OPTIMADE server: {url} holds no table; {_ADVICE}")
        return page, url

    def _met(self, limit: str) -> UnreadableSourceError:
        most = f"{self.max_bytes} bytes (max_bytes)"
        if limit == "seconds":
            most = f"{self.limits.max_seconds:g} s (max_seconds)"
        return UnreadableSourceError(
            f"holds too much: the answers take more than {most}; narrow the filter, or raise the limit"
        )


class _NoPageError(UnreadableSourceError):
    """What came is no table of JSON."""


_ADVICE = "give the base URL that the provider lists (www.optimade.org), without https:// and /v1"


def _address(query: Query, parameters: Mapping[str, str]) -> str:
    return f"{query.base}/structures?{urllib.parse.urlencode(parameters, quote_via=urllib.parse.quote)}"


def _refusal(error: AnswerError, where: str) -> UnreadableSourceError:
    """In the words of the provider, where it has some."""
    said = ""
    try:
        errors = json.loads(error.body)["errors"]
        said = "; ".join(str(one.get("detail") or one.get("title")) for one in errors)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        if error.status in (404, 405, 410):
            return UnreadableSourceError(f"is no OPTIMADE server: {where}: {error}; {_ADVICE}")
    told = f": {said[:500]}" if said else f" at {where}"
    return UnreadableSourceError(f"is refused by the provider: {error}{told}")


def _next_link(page: Mapping[str, Any], url: str) -> str | None:
    """The address of the next page, on the server that this one came from; None after the last."""
    link = _table(page.get("links")).get("next")
    if isinstance(link, Mapping):
        link = link.get("href")
    if not link:
        return None
    here = urllib.parse.urlsplit(url)
    try:
        there = urllib.parse.urlsplit(urllib.parse.urljoin(url, str(link)))
        # half a character is no text
        there.geturl().encode()
    except ValueError:
        there = urllib.parse.SplitResult("", "", "", "", "")
    if there.scheme not in ("http", "https") or there.hostname != here.hostname:
        raise UnreadableSourceError(
            f"is not understood: the next page is said to be at {link!r:.200}, which is not on {here.netloc}; ask that "
            "server itself"
        )
    # a server behind another one may not know that its address is secure
    address = there._replace(scheme=here.scheme, netloc=here.netloc, fragment="").geturl()
    return urllib.parse.quote(address, safe="%/:=&?~+!$,;'@()*[]")


def _count(page: Mapping[str, Any]) -> int:
    """How many structures fit by the provider's count; 0 where it does not say."""
    count = _table(page.get("meta")).get("data_returned")
    return count if isinstance(count, int) else 0


def _is_number(entry: Mapping[str, Any]) -> bool:
    """Whether a property is one number a structure, as versions 1.0 to 1.2 of the standard write it."""
    kinds = entry.get("x-optimade-type") or entry.get("type")
    return bool({"float", "integer", "number"} & set(kinds if isinstance(kinds, list) else [str(kinds)]))


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
