"""Errors as applications see them: always ``OSError`` subclasses, with errno, path and cause.

===================================  ==========  ========================================================
inside                               errno       for the application
===================================  ==========  ========================================================
FsError                              its own     FileNotFoundError, PermissionError, …
Retryable, StaleRouting              ETIMEDOUT   TimeoutError: nothing was applied, it may be tried again
MaybeApplied                         ETIMEDOUT   TimeoutError: it may have happened
StaleFile, SessionLost               ESTALE      open the file again
CorruptData, InternalError           EIO
CapabilityExpired, Unauthenticated   EACCES      PermissionError
InvalidRequest                       EINVAL
WrongCluster, IncompatibleVersion    EPROTO
===================================  ==========  ========================================================

Source: design 6.1.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from fs3.errors import (
    CapabilityExpired,
    CorruptData,
    Fs3Error,
    FsError,
    IncompatibleVersion,
    InternalError,
    InvalidRequest,
    MaybeApplied,
    Retryable,
    SessionLost,
    StaleFile,
    StaleRouting,
    Unauthenticated,
    WrongCluster,
    fs_error,
)

_TABLE: tuple[tuple[type[Fs3Error], int, str], ...] = (
    (MaybeApplied, errno.ETIMEDOUT, "no answer in time; it may have been applied"),
    (Retryable, errno.ETIMEDOUT, "the cluster did not answer in time; nothing was applied"),
    (StaleRouting, errno.ETIMEDOUT, "no server for this data was found in time; nothing was applied"),
    (StaleFile, errno.ESTALE, "the file was cut, removed or replaced by somebody else: open it again"),
    (SessionLost, errno.ESTALE, "the client session is over: open the file again"),
    (CorruptData, errno.EIO, "every replica's bytes failed their checksums"),
    (CapabilityExpired, errno.EACCES, "the right to this file could not be renewed: open it again"),
    (Unauthenticated, errno.EACCES, "the cluster does not accept the token"),
    (InvalidRequest, errno.EINVAL, "the request was refused"),
    (WrongCluster, errno.EPROTO, "this is another cluster"),
    (IncompatibleVersion, errno.EPROTO, "client and server have no protocol version in common"),
    (InternalError, errno.EIO, "a server met a bug of its own"),
)


class TimedOut(FsError, TimeoutError):
    """ETIMEDOUT: an operation was given up at its deadline."""


def as_os_error(error: Fs3Error, path: str | None) -> OSError:
    """The error to raise for ``error``; give the original as its cause."""
    if isinstance(error, FsError):
        number, text = error.errno or errno.EIO, error.strerror or ""
        return fs_error(number, text, path if path is not None else error.filename)
    number, meaning = next(
        ((number, text) for kind, number, text in _TABLE if isinstance(error, kind)), (errno.EIO, "failed")
    )
    text = f"{meaning} ({error})"
    if number == errno.ETIMEDOUT:
        return TimedOut(number, text, path) if path is not None else TimedOut(number, text)
    return fs_error(number, text, path)


@contextmanager
def posix_errors(path: str | None) -> Iterator[None]:
    """Raise what happens inside as ``OSError``, naming ``path``."""
    try:
        yield
    except FsError as error:
        if path is None or error.filename == path:
            raise
        raise as_os_error(error, path) from error
    except Fs3Error as error:
        raise as_os_error(error, path) from error
