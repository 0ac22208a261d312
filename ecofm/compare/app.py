"""`ecofm compare serve`: opens items and store, and runs the web app until it is stopped."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ecofm.compare.picking import PickConfig
from ecofm.errors import ComparisonError, MissingExtraError, UsageError
from ecofm.faults import keep_serving
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
    """Clusters to compare. With their `archive`, sheets can be enlarged and reshuffled."""
    archive: tuple[Path, ...] = ()
    """Archives whose tiles are compared, or that hold the tiles of `clusters` or `members`."""
    members: Path | None = None
    """CSV or Parquet with tile_id, item, in place of `clusters`: which tiles an item stands for."""
    embeddings: tuple[Path, ...] = ()
    """Embeddings of the archives: questions then go to tiles that stand for many others."""
    host: str = "127.0.0.1"
    """Address to listen on. Any other than this machine's own asks for a password or invitations,
    and should stand behind HTTPS."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    names: tuple[str, ...] = ()
    """Further host names under which browsers reach this server, behind a proxy for example; with
    any, a password or invitations are asked for."""
    trusted_proxy: tuple[str, ...] = ()
    """IP address of a proxy before this server, whose X-Forwarded-For names the real client; anyone
    else's is ignored."""
    password_file: Path | None = None
    """File whose first line is the password that annotators type, at least 8 characters."""
    show_place: bool = False
    """Show where and when each tile is from; hidden by default, for an unbiased eye."""
    instructions: Path | None = None
    """Text file shown before the first question: # headings, - points, examples `A > B: why`."""
    goal: int = 100
    """Answers that the page asks of each annotator; more are welcome."""
    pick: PickConfig = field(default_factory=PickConfig)
    """How questions are chosen."""

    def __post_init__(self) -> None:
        """Check the values; raises ValueError."""
        if self.clusters is not None and self.members is not None:
            raise UsageError("give either clusters or members")
        if self.clusters is None and not self.archive:
            raise UsageError("give clusters or an archive to compare")
        if not 0 <= self.port <= 65535:
            raise UsageError(f"port is {self.port}, expected 0 to 65535")
        if self.goal < 1:
            raise UsageError(f"goal is {self.goal}, expected at least 1")
        for address in self.trusted_proxy:
            try:
                ipaddress.ip_address(address)
            except ValueError as error:
                raise UsageError(
                    f"trusted-proxy is {address!r}, expected an IP address such as 127.0.0.1"
                ) from error

    @property
    def is_public(self) -> bool:
        """Whether others than this machine's users are expected."""
        return self.host not in LOOPBACK or bool(self.names)


def open_items(config: ServeConfig) -> ItemSource:
    """Return the items to compare; raises ArtifactError when the folders do not fit."""
    from ecofm.compare.items import ExemplarSheets, MemberSheets, Tiles

    grouped = config.clusters or config.members
    if grouped is None:
        return Tiles(config.archive)
    if config.archive:
        return MemberSheets(config.archive, grouped)
    return ExemplarSheets(grouped)


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket; raises ComparisonError when the port is taken or not allowed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named: with 0, head and body of
    # an answer are sent apart and every answer waits 44 ms for the client's acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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
    when the store or the port cannot be used, or the server would be open to everyone.
    """
    try:
        import uvicorn

        from ecofm.compare.api import build_app
        from ecofm.compare.connections import build_connection
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "starlette", "pydantic"):
            raise
        raise MissingExtraError(
            f"the web app needs {error.name}; install it with `pip install 'ecofm[app]'`"
        ) from error
    from ecofm.compare.store import Store

    source = open_items(config)
    with Store(config.store) as store:
        app = build_app(source, store, config)
        with listen(config.host, config.port) as listener:
            port = listener.getsockname()[1]
            shown = f"[{config.host}]" if ":" in config.host else config.host
            say(f"{len(source.items)} items; open http://{shown}:{port} and stop with Ctrl-C.")
            # A socket that takes IPv4, too, writes such addresses in IPv6's form.
            mapped = [f"::ffff:{address}" for address in config.trusted_proxy if ":" not in address]
            settings = uvicorn.Config(
                keep_serving(app), log_level="error", access_log=False, server_header=False,
                ws="none", timeout_graceful_shutdown=3,
                http=build_connection(config.trusted_proxy),
                proxy_headers=bool(config.trusted_proxy),
                forwarded_allow_ips=[*config.trusted_proxy, *mapped],
            )  # fmt: skip
            # uvicorn ends its work in order and then raises the signal again: Ctrl-C is the
            # normal end.
            with suppress(KeyboardInterrupt):
                uvicorn.Server(settings).run(sockets=[listener])
