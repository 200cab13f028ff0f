"""Files from the network or from a mirror: resumed, checked, and under their final name only when they are whole.

Which files a data set has is written in `cdvae_kit.datasets`; nothing here knows of crystals.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.client
import logging
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from pathlib import Path
from typing import IO

from filelock import FileLock

from cdvae_kit.io.atomic import errors_naming, sync, temporary_beside
from cdvae_kit.io.connections import OPENER, WORTH_ANOTHER_TRY, BrokenConnectionError, chunks, reason_of
from cdvae_kit.typing import OpenProgress

logger = logging.getLogger(__name__)

MAX_BYTES = 2**33
"""Of a file whose size nobody has stated."""

_CHUNK = 1 << 18


class DownloadError(OSError):
    """A file that could not be fetched, or that is not the one it should be."""


class _NotThere(DownloadError):
    """The source has no file of that name."""


def git_blob_id(path: str | os.PathLike[str]) -> str:
    """The SHA-1 that git gives to a file with this content, as 40 hexadecimal digits.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "hello.txt"
    >>> _ = path.write_bytes(b"hello world" + bytes([10]))
    >>> git_blob_id(path)
    '3b18e512dba79e4c8300dd08aeb37f8e728b8dad'
    """
    path = Path(path)
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def download_file(
    url: str,
    path: str | os.PathLike[str],
    *,
    git_blob_id: str | None = None,
    num_bytes: int | None = None,
    max_bytes: int = MAX_BYTES,
    overwrite: bool = False,
    progress: OpenProgress | None = None,
    retries: int = 4,
    backoff: float = 1.0,
    timeout: float = 30.0,
    min_rate: float = 256.0,
) -> Path:
    """The path of the file, fetched from `url` unless it is there already.

    What has arrived is kept in `<path>.part` when the connection breaks for good, and continued by the next call if
    `git_blob_id` can prove the result; without one, only breaks within this call are continued. A source without
    the file but with `<file>.gz` gives the unpacked content. Several processes may ask for the same path at once: one
    downloads, the others wait for it.

    Args:
        url: an http, https or file address, or a path of this machine.
        path: where the file goes; missing folders are made.
        git_blob_id: the content's SHA-1 as git computes it; other content is an error and leaves nothing behind.
        num_bytes: the content's size where it is known; a source that sends more is left at once.
        max_bytes: the same where it is not.
        overwrite: whether a file at `path` with other (or unproven) content may be replaced.
        progress: called with the bytes at hand and the bytes in all.
        retries: how often a broken connection is tried again.
        backoff: seconds before the first of these tries; each later one waits twice as long.
        timeout: seconds without a byte after which a connection counts as broken; and for the whole of the head of an
            answer.
        min_rate: bytes a second; a connection that brings less during `timeout` counts as broken.

    Raises:
        DownloadError: the file is not there, cannot be fetched, or has other content.
        FileExistsError: another file is in the way.
    """
    path = Path(path)
    if git_blob_id is not None and not re.fullmatch("[0-9a-f]{40}", git_blob_id):
        raise ValueError(f"git_blob_id must be 40 hexadecimal digits in lower case, got {git_blob_id!r}")
    address = _address(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    fetch = _Fetch(
        address,
        most=max_bytes if num_bytes is None else num_bytes,
        progress=progress,
        retries=retries,
        backoff=backoff,
        timeout=timeout,
        min_rate=min_rate,
    )
    if git_blob_id is None:
        if not _is_there(path, None, overwrite=overwrite):
            fetch.unproven(path)
        return path
    lock = path.with_name(f".{path.name}.lock")
    with FileLock(lock):
        if not _is_there(path, git_blob_id, overwrite=overwrite):
            fetch.proven(path, git_blob_id)
        if os.name != "nt":
            # whoever still waits for it finds the file; after a failure it must stay, for a waiter fetches then
            lock.unlink(missing_ok=True)
    return path


def _address(url: str) -> str | Path:
    """A network address as it is, anything of this machine as a path."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme in ("http", "https"):
        return url
    if parts.scheme == "file":
        return Path(urllib.request.url2pathname(parts.path))
    # one letter is a drive of Windows
    if len(parts.scheme) > 1 and "://" in url:
        raise ValueError(f"cannot download from {url!r}: expected an http, https or file address, or a path")
    return Path(url)


def _is_there(path: Path, blob_id: str | None, *, overwrite: bool) -> bool:
    if path.is_dir():
        raise IsADirectoryError(f"cannot download to {path}: a folder has that name")
    if not path.exists():
        return False
    if blob_id is not None and git_blob_id(path) == blob_id:
        return True
    if overwrite:
        return False
    what = "with other content" if blob_id is not None else "and nothing proves that it is the one asked for"
    raise FileExistsError(f"{path} exists already, {what}; move it away or allow overwriting (overwrite=True)")


class _Fetch:
    """One download: its source and how patient it is."""

    def __init__(
        self,
        address: str | Path,
        *,
        most: int,
        progress: OpenProgress | None,
        retries: int,
        backoff: float,
        timeout: float,
        min_rate: float,
    ) -> None:
        self.address = address
        self.most = most
        self.min_rate = min_rate
        self.progress = progress
        self.retries = retries
        self.backoff = backoff
        self.timeout = timeout
        self.keeps_parts = False
        self._validator: str | None = None

    def unproven(self, path: Path) -> None:
        """Fetches to `path` by way of a temporary name of its own: nothing could tell whether an older part fits."""
        part = temporary_beside(path)
        packed = temporary_beside(path)
        try:
            source, problem = self._fetch_any(part, packed)
            if problem:
                raise DownloadError(f"{source} cannot be used: {problem}. Nothing was kept; try another source")
            _publish(part, path)
        finally:
            part.unlink(missing_ok=True)
            packed.unlink(missing_ok=True)

    def proven(self, path: Path, blob_id: str) -> None:
        """Fetches to `path` by way of `<path>.part`, which stays when the connection breaks for good."""
        self.keeps_parts = True
        part = path.with_name(path.name + ".part")
        packed = path.with_name(path.name + ".gz.part")
        for one in (part, packed):
            _remove_if_linked(one)
        is_continued = part.exists() or packed.exists()
        source, problem = self._fetch_any(part, packed)
        problem = problem or _what_is_wrong(part, blob_id)
        if problem and is_continued:
            logger.warning("%s: the partial download at hand was not a part of it; starting anew", source)
            source, problem = self._fetch_any(part, packed)
            problem = problem or _what_is_wrong(part, blob_id)
        if problem:
            raise DownloadError(
                f"{source} is not the file that was asked for: {problem}. Nothing was kept; "
                "the source is damaged or holds another version, try another one"
            )
        _publish(part, path)

    def _fetch_any(self, part: Path, packed: Path) -> tuple[str, str | None]:
        """Fills `part` from the address or its gzip variant; returns which one it was and what is wrong with it."""
        try:
            self._fetch(self.address, part)
        except _NotThere as not_there:
            variant = f"{self.address}.gz" if isinstance(self.address, str) else Path(f"{self.address}.gz")
            try:
                self._fetch(variant, packed)
            except _NotThere:
                raise DownloadError(
                    f"{not_there}; nor is there a packed {variant}. Check the address and the name of the file"
                ) from None
            return str(variant), _unpack(packed, part, self.most)
        return str(self.address), None

    def _fetch(self, address: str | Path, part: Path) -> None:
        if isinstance(address, Path):
            self._copy(address, part)
            return
        self._validator = None
        for failure in range(self.retries + 1):
            try:
                self._request(address, part)
                return
            except BrokenConnectionError as broken:
                kept = part.stat().st_size if part.exists() else 0
                if failure == self.retries:
                    advice = "run the same download again to start anew"
                    if self.keeps_parts:
                        advice = f"{kept} bytes are kept in {part}; run the same download again to go on from there"
                    raise DownloadError(
                        f"{address} could not be fetched in {self.retries + 1} tries: {broken}; {advice}"
                    ) from broken
                pause = self.backoff * 2**failure
                logger.warning("%s: %s; trying again in %g s, from byte %d", address, broken, pause, kept)
                time.sleep(pause)

    def _copy(self, source: Path, part: Path) -> None:
        if not source.is_file():
            raise _NotThere(f"{source} does not exist")
        total = source.stat().st_size
        self._check_size(total, source, part)
        with errors_naming(part), source.open("rb") as reader, _open_part(part, "wb") as writer:
            done = 0
            while chunk := reader.read(_CHUNK):
                writer.write(chunk)
                done += len(chunk)
                self._tell(done, total)

    def _request(self, url: str, part: Path) -> None:
        """Fetches what is missing of `part`."""
        at_hand = part.stat().st_size if part.exists() else 0
        request = urllib.request.Request(url, headers={"User-Agent": "cdvae_kit", "Accept-Encoding": "identity"})
        if at_hand:
            request.add_header("Range", f"bytes={at_hand}-")
            if self._validator is not None:
                request.add_header("If-Range", self._validator)
        try:
            response = OPENER.open(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            with error:
                self._refused(error, url, part, at_hand)
            return
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BrokenConnectionError(reason_of(error)) from error
        with response:
            start, total = _extent(response)
            self._validator = _validator(response)
            if start not in (0, at_hand):
                part.unlink()
                raise BrokenConnectionError(f"the server sent bytes from {start} on, {at_hand} was asked for")
            if at_hand and not start:
                logger.info("%s: the server does not continue downloads, or the file has changed; starting anew", url)
            if total is not None:
                self._check_size(total, url, part)
            with errors_naming(part), _open_part(part, "r+b" if start else "wb") as file:
                done = file.seek(start)
                for chunk in chunks(response, timeout=self.timeout, min_rate=self.min_rate):
                    done += len(chunk)
                    if done > self.most:
                        break
                    file.write(chunk)
                    self._tell(done, total)
            self._check_size(done, url, part)
            if total is not None and done != total:
                raise BrokenConnectionError(f"the connection ended after {done} of {total} bytes")

    def _refused(self, error: urllib.error.HTTPError, url: str, part: Path, at_hand: int) -> None:
        """Returns when the part is complete already, raises otherwise."""
        answer = f"{error.code} {error.reason}"
        if error.code == 416 and at_hand:
            if error.headers.get("Content-Range") == f"bytes */{at_hand}":
                self._tell(at_hand, at_hand)
                return
            part.unlink()
            raise BrokenConnectionError(f"the server has fewer than the {at_hand} bytes at hand")
        if error.code in WORTH_ANOTHER_TRY:
            raise BrokenConnectionError(f"the server answered {answer}")
        if error.code in (404, 410):
            raise _NotThere(f"{url} does not exist (the server answered {answer})")
        raise DownloadError(f"{url} was refused: the server answered {answer}")

    def _check_size(self, num_bytes: int, source: str | Path, part: Path) -> None:
        if num_bytes > self.most:
            part.unlink(missing_ok=True)
            raise DownloadError(
                f"{source} has more than {self.most} bytes, the most that this file may have (num_bytes, max_bytes); "
                "nothing was kept: it is another file, or the limit has to be raised"
            )

    def _tell(self, done: int, total: int | None) -> None:
        if self.progress is not None:
            self.progress(done, total)


def _open_part(part: Path, mode: str) -> IO[bytes]:
    """The unfinished file, opened for writing; a link in its place is not followed."""
    try:
        descriptor = os.open(part, (os.O_RDWR if mode == "r+b" else os.O_WRONLY | os.O_CREAT | os.O_TRUNC) | _NO_LINKS)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DownloadError(f"{part} is a link, which is not followed; remove it") from error
        raise
    return os.fdopen(descriptor, mode)


_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def _remove_if_linked(part: Path) -> None:
    """Removes a link (symbolic or hard) in the place of an unfinished file: writing to it would change another file."""
    if part.is_symlink() or (part.exists() and part.stat().st_nlink > 1):
        logger.warning("%s is a link and no part of a download; it is removed, what it leads to stays", part)
        part.unlink()


def _extent(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """The first byte that the answer holds, and the size of the whole file."""
    if response.status == 206:
        content_range = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", content_range)
        if match is None:
            raise BrokenConnectionError(f"the server sent a part but not which one (Content-Range {content_range!r})")
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if re.fullmatch("[0-9]{1,18}", length) else None


def _validator(response: http.client.HTTPResponse) -> str | None:
    """What tells this version of the file from a later one, in the form that If-Range takes."""
    etag = response.headers.get("ETag")
    # a weak tag (W/"...") may stand for several contents
    return etag if etag is not None and etag.startswith('"') else response.headers.get("Last-Modified")


def _unpack(packed: Path, part: Path, most: int) -> str | None:
    """Why `packed` cannot be unpacked to `part`; neither is left then."""
    try:
        done = 0
        with errors_naming(part), gzip.open(packed) as reader, _open_part(part, "wb") as writer:
            while chunk := reader.read(_CHUNK):
                done += len(chunk)
                if done > most:
                    break
                writer.write(chunk)
        if done > most:
            part.unlink(missing_ok=True)
            return f"it unpacks to more than {most} bytes, the most that this file may have (num_bytes, max_bytes)"
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        part.unlink(missing_ok=True)
        return f"it is not a whole gzip file ({error})"
    finally:
        packed.unlink()
    return None


def _publish(part: Path, path: Path) -> None:
    sync(part)
    os.replace(part, path)
    sync(path.parent)


def _what_is_wrong(part: Path, blob_id: str) -> str | None:
    """Why the content is not the right one; the file is removed then."""
    found = git_blob_id(part)
    if found == blob_id:
        return None
    problem = f"its {part.stat().st_size} bytes have the git blob id {found}, expected {blob_id}"
    part.unlink()
    return problem
