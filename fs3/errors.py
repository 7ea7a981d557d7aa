"""The errors of fs3: one class for each reaction of a caller, detail in the message.

::

    Fs3Error                      code  reaction of the caller
     ├─ Retryable                       the same request again, later or elsewhere
     │   ├─ Busy                  101   … after a pause (admission, lock, back-pressure)
     │   ├─ Unavailable           102   … at another server, or when it is back
     │   ├─ DeadlineExceeded      103   … if the caller's own deadline allows it
     │   ├─ TransactionConflict   104   run the transaction's body again
     │   └─ TransactionTooOld     105   run the transaction's body again at a new read version
     ├─ MaybeApplied              110   again *only* under the same identity (slot, channel): it may be done
     ├─ StaleRouting              120   fetch routing, then again
     ├─ StaleFile                 130   re-read the inode (epoch or layout changed), then again, or ESTALE
     ├─ CapabilityExpired         131   renew or present the capability, then again
     ├─ SessionLost               140   the client session is over: what it had open is lost (ESTALE)
     ├─ CorruptData               150   another replica; never retried silently, always counted
     ├─ Rejected                        the caller's fault: do not repeat
     │   ├─ InvalidRequest        160   … malformed, out of bounds, wrong version (EINVAL)
     │   ├─ Unauthenticated       161   … no or wrong proof of identity
     │   ├─ WrongCluster          162   … this is another cluster
     │   ├─ IncompatibleVersion   163   … no protocol version in common
     │   └─ FsError               200   … POSIX says so: errno, path; also the matching ``OSError`` subclass
     └─ InternalError             199   a bug in the server; logged there with the request id

Every class travels over the wire as (code, errno, message, path) and is raised again on the other side
(``from_wire``). An unknown code (a newer server) becomes its reaction group by range, else InternalError.
A new class is added only with a new reaction.
"""

from __future__ import annotations

import errno as errno_names
import os
from typing import ClassVar


class Fs3Error(Exception):
    """Base of all errors that fs3 raises on purpose."""

    code: ClassVar[int] = 199


class Retryable(Fs3Error):
    """Nothing was applied; the same request may be sent again."""

    code = 100


class Busy(Retryable):
    """The server is at a bound (queue, lock, channel in use)."""

    code = 101


class Unavailable(Retryable):
    """The server, or what it needs, cannot be reached now."""

    code = 102


class DeadlineExceeded(Retryable):
    """The request's deadline passed before it was done, and it certainly was not applied."""

    code = 103


class TransactionConflict(Retryable):
    """The transaction read what another one has changed since (FoundationDB 1020)."""

    code = 104


class TransactionTooOld(Retryable):
    """The transaction's read version is older than the conflict window (FoundationDB 1007)."""

    code = 105


class MaybeApplied(Fs3Error):
    """The answer was lost: the request was applied or was not (FoundationDB 1021)."""

    code = 110


class StaleRouting(Fs3Error):
    """Sender's and receiver's chain versions differ, or a lease is missing: fetch routing, try again."""

    code = 120


class StaleFile(Fs3Error):
    """The request names an older epoch or another layout of the file than is known (design 3.9, 4.9)."""

    code = 130


class CapabilityExpired(Fs3Error):
    """The capability is not valid (any more) for this request at this cluster time (design 7)."""

    code = 131


class SessionLost(Fs3Error):
    """The client session named by the request is over (design 3.4)."""

    code = 140


class CorruptData(Fs3Error):
    """Bytes do not match their checksum."""

    code = 150


class Rejected(Fs3Error):
    """The request is wrong and stays wrong."""

    code = 159


class InvalidRequest(Rejected):
    """Malformed, out of bounds, or unknown to this server."""

    code = 160


class Unauthenticated(Rejected):
    """No proof of identity, or a wrong one."""

    code = 161


class WrongCluster(Rejected):
    """The peer belongs to another cluster."""

    code = 162


class IncompatibleVersion(Rejected):
    """No protocol version in common with the peer."""

    code = 163


class InternalError(Fs3Error):
    """The server met a bug of its own; its log has the request id."""

    code = 199


class FsError(Rejected, OSError):
    """An answer of the file system in POSIX terms.

    Raise it through ``fs_error(errno, message, path)``, which picks the class that is also the matching
    built-in (``FileNotFoundError`` …).
    """

    code = 200


class NotFound(FsError, FileNotFoundError):
    """ENOENT."""


class Exists(FsError, FileExistsError):
    """EEXIST."""


class NotADirectory(FsError, NotADirectoryError):
    """ENOTDIR."""


class IsADirectory(FsError, IsADirectoryError):
    """EISDIR."""


class AccessDenied(FsError, PermissionError):
    """EACCES or EPERM."""


_BY_ERRNO: dict[int, type[FsError]] = {
    errno_names.ENOENT: NotFound,
    errno_names.EEXIST: Exists,
    errno_names.ENOTDIR: NotADirectory,
    errno_names.EISDIR: IsADirectory,
    errno_names.EACCES: AccessDenied,
    errno_names.EPERM: AccessDenied,
}


def fs_error(number: int, message: str = "", path: str | bytes | None = None) -> FsError:
    """The error for ``errno`` number; ``message`` says more than ``os.strerror`` would, ``path`` is shown."""
    shown = os.fsdecode(path) if path is not None else None
    text = message or os.strerror(number)
    kind = _BY_ERRNO.get(number, FsError)
    return kind(number, text, shown) if shown is not None else kind(number, text)


def _all_codes() -> dict[int, type[Fs3Error]]:
    found: dict[int, type[Fs3Error]] = {}
    waiting: list[type[Fs3Error]] = [Fs3Error]
    while waiting:
        kind = waiting.pop()
        waiting.extend(kind.__subclasses__())
        if not issubclass(kind, FsError) and kind is not Fs3Error:
            assert kind.code not in found, kind
            found[kind.code] = kind
    return found


_BY_CODE = _all_codes()


def to_wire(error: Fs3Error) -> tuple[int, int, str, str]:
    """(code, errno or 0, message, path or "") of an error, for a response."""
    if isinstance(error, FsError):
        return FsError.code, error.errno or errno_names.EIO, error.strerror or "", error.filename or ""
    return error.code, 0, str(error), ""


def again(error: Fs3Error) -> Fs3Error:
    """An equal error, to raise elsewhere: one object that is raised many times gathers all the tracebacks."""
    return from_wire(*to_wire(error))


def from_wire(code: int, number: int, message: str, path: str) -> Fs3Error:
    """The error that ``to_wire`` took apart; codes of a newer peer fall back to their group."""
    if code == FsError.code:
        return fs_error(number or errno_names.EIO, message, path or None)
    kind = _BY_CODE.get(code)
    if kind is None:
        group = (Retryable, 100, 110), (StaleFile, 130, 140), (Rejected, 159, 199)
        kind = next((k for k, low, high in group if low <= code < high), InternalError)
        message = f"{message} (unknown error code {code})"
    return kind(message)
