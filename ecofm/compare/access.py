"""Who may answer: anybody by name on one's own machine; by password or invitation elsewhere."""

from __future__ import annotations

import hmac
import time
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal

from ecofm.compare.comparison import normalize_name
from ecofm.errors import ComparisonError

if TYPE_CHECKING:
    from ecofm.compare.app import ServeConfig
    from ecofm.compare.store import Store

Access = Literal["name", "password", "invite"]

MAX_FAILURES = 10
FAILURE_SECONDS = 60.0
MAX_CLIENTS = 10_000
MIN_PASSWORD = 8


class RefusedError(Exception):
    """Somebody may not answer; status is HTTP's."""

    def __init__(self, status: int, reason: str) -> None:
        """Keep the reason as the page shows it."""
        super().__init__(reason)
        self.status = status


class Door:
    """Lets annotators in and tells them their name."""

    def __init__(self, store: Store, config: ServeConfig) -> None:
        """Find out what is asked for.

        Raises ComparisonError when others can reach the server and nothing keeps them out, or the
        password is unusable.
        """
        self._store = store
        self._password = read_password(config.password_file) if config.password_file else None
        self.access: Access = "name"
        if self._password is not None:
            self.access = "password"
        elif config.is_public:
            if not store.has_invites():
                where = ", ".join(config.names) or config.host
                raise ComparisonError(
                    f"everyone who reaches {where} could vote: invite annotators with "
                    f"`ecofm compare invite NAME --store {store.path}`, or give --password-file."
                )
            self.access = "invite"
        self._failures: dict[str, list[float]] = {}
        self._lock = Lock()

    def enter(
        self, client: str, annotator: str | None, password: str | None, invite: str | None
    ) -> str:
        """Return the annotator's name; raises RefusedError, or ComparisonError for a bad name.

        An invitation names its annotator, and is good wherever it is shown.
        """
        if invite is not None:
            invited = self._store.find_invited(invite)
            if invited is None:
                raise RefusedError(403, "this invitation is not valid; ask for a new one")
            return invited
        if self.access == "invite":
            raise RefusedError(403, "open the link of your invitation")
        if self.access == "password":
            self._check_password(client, password or "")
        return normalize_name(annotator or "", "your name")

    def _check_password(self, client: str, password: str) -> None:
        """Raise RefusedError for a wrong password, and for any after ten wrong ones a minute."""
        now = time.monotonic()
        with self._lock:
            recent = [at for at in self._failures.get(client, []) if now - at < FAILURE_SECONDS]
            if len(recent) >= MAX_FAILURES:
                raise RefusedError(429, "too many wrong passwords; wait a minute")
            assert self._password is not None
            if hmac.compare_digest(password.encode("utf-8", "replace"), self._password):
                self._failures.pop(client, None)
                return
            if len(self._failures) >= MAX_CLIENTS:
                self._failures.clear()
            self._failures[client] = [*recent, now]
        raise RefusedError(403, "the password is wrong")


def read_password(path: Path) -> bytes:
    """Return the first line of a file; raises ComparisonError when it is too short to be one."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ComparisonError(f"{path} cannot be read as a password file ({error}).") from error
    password = lines[0].strip() if lines else ""
    if len(password) < MIN_PASSWORD:
        raise ComparisonError(
            f"the password in {path} has {len(password)} characters, expected at least "
            f"{MIN_PASSWORD}; write a longer one into its first line."
        )
    return password.encode()
