"""Who may answer: anybody by name on one's own machine; by password or invitation elsewhere."""

from __future__ import annotations

import hmac
import math
import time
from collections import OrderedDict, deque
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal

from ecofm.compare.addresses import name_client
from ecofm.compare.comparison import normalize_name
from ecofm.compare.people import Person, TakenError
from ecofm.errors import ComparisonError
from ecofm.files import read_file, reason_of

if TYPE_CHECKING:
    from ecofm.compare.app import ServeConfig
    from ecofm.compare.store import Store

Access = Literal["name", "password", "invite"]

MAX_FAILURES = 10
"""Wrong passwords that one address has in a minute."""
MAX_ALL_FAILURES = 100
"""Wrong passwords that all addresses together have in a minute."""
FAILURE_SECONDS = 60.0
MAX_WAIT_SECONDS = 900.0
FORGET_SECONDS = 3600.0
"""So long after a wait, the next one is short again."""
MAX_CLIENTS = 10_000
MIN_PASSWORD = 8
MAX_PASSWORD_FILE = 2**16


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
            if not store.people.has_invites():
                where = ", ".join(config.names) or config.host
                raise ComparisonError(
                    f"everyone who reaches {where} could vote: invite annotators with "
                    f"`ecofm compare invite NAME --store {store.path}`, or give --password-file."
                )
            self.access = "invite"
        self._failures: OrderedDict[str, Budget] = OrderedDict()
        self._all_failures = Budget(MAX_ALL_FAILURES)
        self._lock = Lock()

    def enter(
        self, client: str, browser: str, annotator: str | None, password: str | None,
        invite: str | None,
    ) -> Person:  # fmt: skip
        """Return for whom a session shall act; `browser` is a secret that the browser keeps.

        An invitation names its annotator, and is good wherever it is shown. Raises RefusedError,
        or ComparisonError for a bad name.
        """
        people = self._store.people
        if invite is not None:
            invited = people.accept(invite, browser)
            if invited is None:
                raise RefusedError(403, "this invitation is not valid; ask for a new one")
            return invited
        if self.access == "invite":
            raise RefusedError(403, "open the link of your invitation")
        if self.access == "password":
            is_known = people.is_known(annotator or "", browser)
            self._check_password(client, password or "", is_known)
        name = normalize_name(annotator or "", "your name")
        try:
            return people.enter(name, browser, claim=self.access == "password")
        except TakenError as error:
            raise RefusedError(403, str(error)) from error

    def _check_password(self, client: str, password: str, is_known: bool) -> None:
        """Raise RefusedError for a wrong password, and for any while too many were wrong.

        Wrong ones are counted for each address and for all of them together. A browser that was
        let in under this name before (`is_known`) does not wait for what others did.
        """
        now = time.monotonic()
        with self._lock:
            own = self._failures.setdefault(name_client(client), Budget(MAX_FAILURES))
            self._failures.move_to_end(name_client(client))
            if len(self._failures) > MAX_CLIENTS:
                self._failures.popitem(last=False)
            wait = max(own.wait(now), 0 if is_known else self._all_failures.wait(now))
            if wait:
                raise RefusedError(429, f"too many wrong passwords; wait {wait} seconds")
            assert self._password is not None
            if hmac.compare_digest(password.encode("utf-8", "replace"), self._password):
                return
            own.spend(now)
            self._all_failures.spend(now)
        raise RefusedError(403, "the password is wrong")


class Budget:
    """How many wrong passwords are allowed in a minute; then a wait that grows with each time."""

    def __init__(self, n_allowed: int) -> None:
        """Begin with all of them."""
        self.n_allowed = n_allowed
        self._spent: deque[float] = deque(maxlen=n_allowed)
        self._until = -math.inf
        self._n_waits = 0

    def wait(self, now: float) -> int:
        """Return how many seconds to wait before another try, 0 for none."""
        return math.ceil(max(self._until - now, 0.0))

    def spend(self, now: float) -> None:
        """Count a wrong one; `now` is in seconds and never smaller than before."""
        if now - self._until > FORGET_SECONDS:
            self._n_waits = 0
        self._spent.append(now)
        if len(self._spent) == self.n_allowed and now - self._spent[0] <= FAILURE_SECONDS:
            self._until = now + min(FAILURE_SECONDS * 2**self._n_waits, MAX_WAIT_SECONDS)
            self._n_waits += 1
            self._spent.clear()


def read_password(path: Path) -> bytes:
    """Return the first line of a file; raises ComparisonError when it is too short to be one."""
    try:
        lines = read_file(path, MAX_PASSWORD_FILE).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ComparisonError(
            f"{path} cannot be read as a password file ({reason_of(error)})."
        ) from error
    password = lines[0].strip() if lines else ""
    if len(password) < MIN_PASSWORD:
        raise ComparisonError(
            f"the password in {path} has {len(password)} characters, expected at least "
            f"{MIN_PASSWORD}; write a longer one into its first line."
        )
    return password.encode()
