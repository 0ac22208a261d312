"""One writer: a lock beside a target, which the kernel releases however its holder ends.

`flock` on a hidden file that says who writes. Local disks have it and so has NFS (Linux asks the
server, which lets go when the holder's machine is gone); a disk without locks is named in a
warning. The file is removed with the lock, or by the next writer after a kill.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from ecofm.disk import CLOSED, unwritable
from ecofm.errors import ArtifactError
from ecofm.types import say

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)
MAX_NOTE_BYTES = 4096

_held: weakref.WeakValueDictionary[Path, Lock] = weakref.WeakValueDictionary()
_guard = threading.RLock()


class Lock:
    """The right to write `out`, taken by `take` or as a context manager around the writing.

    Outside the context another writer of the same process may take it over: that is a call that
    failed and is made again, as in a notebook. It ends with `release`, with the object or with
    the process. Where nothing can be written nothing is locked, and `require` says why: what is
    done already can be told all the same.
    """

    def __init__(self, out: Path, stage: str) -> None:
        """Say what is to be written, and by which stage; nothing is locked yet."""
        self.out, self.stage = out, stage
        self.is_writing = False
        self.refused: OSError | None = None
        self._target = out.resolve()
        self._path = self._target.with_name(f".{self._target.name}.lock")
        self._end: Any = None

    def take(self) -> None:
        """Lock the target; the folder that it lies in is made.

        Raises ArtifactError, which says who, when it is being written.
        """
        with _guard:
            other = _held.get(self._path)
            if other is self and self._end is not None:
                return
            if other is not None:
                if other.is_writing:
                    raise _busy(self.out, _note(other.stage))
                other.release()
            made: list[Path] = []
            try:
                made = _make_parents(self._path.parent)
                descriptor, is_ours = _lock(self._path, self._target, self.out)
            except OSError as error:
                _remove(made)
                self.refused = error
                return
            if is_ours:
                with suppress(OSError):  # a full disk: who writes is not known then
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, json.dumps(_note(self.stage)).encode(), 0)
            end = (descriptor, self._path if is_ours else None, made, os.getpid())
            self._end = weakref.finalize(self, _release, *end)
            _held[self._path] = self

    def release(self) -> None:
        """Let others write; without effect when nothing is held."""
        with _guard:
            if self._end is not None:
                self._end()
                self._end = None

    def require(self) -> None:
        """Raise ArtifactError when nothing can be written."""
        if self.refused is not None:
            raise unwritable(self.out, self.refused) from self.refused

    def __enter__(self) -> Lock:
        """Take the lock, and keep it from other calls of this process too."""
        self.take()
        self.is_writing = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Release the lock."""
        self.is_writing = False
        self.release()


def _lock(path: Path, target: Path, out: Path) -> tuple[int, bool]:
    """Return the descriptor that holds the lock, and whether it is of the file beside the target.

    Where only the target itself may be written (a mounted volume), its own folder is locked.
    """
    while True:
        is_ours = True
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            if error.errno not in CLOSED:
                raise
            is_ours = False
            # What another user's killed run left may be read only; it is removed once it is ours.
            place = path if path.exists() else target
            if place is target and not os.access(target, os.W_OK):
                raise
            descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note = _read_note(descriptor)
            os.close(descriptor)
            raise _busy(out, note) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
            say(
                f"warning: the disk of {out} has no locks ({error.strerror}); make sure that no "
                "other process writes it."
            )
            return descriptor, is_ours
        if not is_ours and place is path:
            os.unlink(path)
        elif not is_ours or _is_at(descriptor, path):
            return descriptor, is_ours
        os.close(descriptor)  # its last holder has removed it meanwhile


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _release(descriptor: int, path: Path | None, made: list[Path], pid: int) -> None:
    if os.getpid() != pid:  # a fork, whose parent goes on
        return
    if path is not None:
        with suppress(OSError):
            path.unlink()
    os.close(descriptor)
    _remove(made)


def _make_parents(folder: Path) -> list[Path]:
    """Make a folder and return what had to be made for it, the deepest first."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        _remove(made)
        raise
    return made


def _remove(made: list[Path]) -> None:
    """Remove folders that were made for nothing; what is not empty stays."""
    for folder in made:
        with suppress(OSError):
            folder.rmdir()


def _note(stage: str) -> dict[str, Any]:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    return {"pid": os.getpid(), "host": socket.gethostname(), "stage": stage, "since": since}


def _read_note(descriptor: int) -> dict[str, Any]:
    """Return what the holder noted; nothing when it is not readable yet."""
    try:
        found = json.loads(os.pread(descriptor, MAX_NOTE_BYTES, 0))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _busy(out: Path, note: dict[str, Any]) -> ArtifactError:
    who = "another process"
    if {"pid", "host", "stage", "since"} <= note.keys():
        who = (
            f"process {note['pid']} on {note['host']} (stage {note['stage']}, since "
            f"{note['since']} UTC)"
        )
    return ArtifactError(
        f"{out} is being written by {who}; wait until it has ended, or choose another --out."
    )
