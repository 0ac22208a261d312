"""`ecofm compare serve`: opens items and store, and runs the web app until it is stopped."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ecofm.errors import ComparisonError, MissingExtraError
from ecofm.types import say

if TYPE_CHECKING:
    from ecofm.compare.items import ItemSource

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """What the web app shows, where it keeps the answers, and where it listens."""

    store: Path
    """Comparison store (SQLite); made when it does not exist."""
    clusters: Path | None = None
    """Clusters artifact whose clusters are compared; give this or `archive`."""
    archive: Path | None = None
    """Archive whose tiles are compared; give this or `clusters`."""
    host: str = "127.0.0.1"
    """Address to listen on. Any other than this machine's own lets everyone who reaches it vote."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    names: tuple[str, ...] = ()
    """Further host names under which browsers reach this server, behind a proxy for example."""
    goal: int = 100
    """Answers that the page asks of each annotator; more are welcome."""
    seed: int | None = None
    """Seed of the choice of pairs; None draws another order at each start."""

    def __post_init__(self) -> None:
        """Check the values; raises ValueError."""
        if (self.clusters is None) == (self.archive is None):
            raise ValueError("give either clusters or an archive to compare")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}, expected 0 to 65535")
        if self.goal < 1:
            raise ValueError(f"goal is {self.goal}, expected at least 1")


def open_items(config: ServeConfig) -> ItemSource:
    """Return the items to compare; raises ArtifactError when the folder is not their artifact."""
    from ecofm.compare.items import ArchiveTiles, ClusterSheets

    if config.clusters is not None:
        return ClusterSheets(config.clusters)
    assert config.archive is not None
    return ArchiveTiles(config.archive)


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket; raises ComparisonError when the port is taken or not allowed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ComparisonError(
            f"cannot listen on {host} port {port} ({error.strerror}); give another --port, "
            "or 0 for a free one."
        ) from error
    return listener


def serve(config: ServeConfig) -> None:
    """Run the web app until it is interrupted.

    Raises MissingExtraError without FastAPI, ArtifactError for unusable items, ComparisonError
    for an unusable store or port.
    """
    try:
        import uvicorn

        from ecofm.compare.api import build_app
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "starlette", "pydantic"):
            raise
        raise MissingExtraError(
            f"the web app needs {error.name}; install it with `pip install 'ecofm[app]'`"
        ) from error
    from ecofm.compare.store import Store

    source = open_items(config)
    with Store(config.store) as store, listen(config.host, config.port) as listener:
        app = build_app(source, store, config)
        port = listener.getsockname()[1]
        shown = f"[{config.host}]" if ":" in config.host else config.host
        say(f"{len(source.items)} items; open http://{shown}:{port} and stop with Ctrl-C.")
        if config.host not in LOOPBACK:
            say(f"Everyone who can reach {config.host} port {port} can vote: there is no password.")
        settings = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, ws="none",
            timeout_graceful_shutdown=3,
        )  # fmt: skip
        # uvicorn ends its work in order and then raises the signal again: Ctrl-C is the normal end.
        with suppress(KeyboardInterrupt):
            uvicorn.Server(settings).run(sockets=[listener])
