"""python server.py STORE PORT [SETTINGS]: the web app, started again when it is killed.

Settings are a ServeConfig's, as JSON.

Modules are imported once; each server is a fork that opens the store anew, so that fifty of them
start in seconds. The process id of each is printed when it is about to listen.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

from ecofm.compare import api, app, store  # noqa: F401 - imported before the first fork
from ecofm.compare.items import encode


def draw(number, style):
    """A picture that differs by number, bluish in true colour and reddish in false colour."""
    grey = np.indices((64, 64)).sum(axis=0) * (number + 1) % 200
    shown = np.stack([grey, grey, grey + 50][:: 1 if style == "true" else -1], axis=-1)
    return encode(shown.astype(np.uint8))


class Items:
    """Eight clusters of four pictures each; one has a hostile name."""

    def __init__(self):
        self.items = [*(str(number) for number in range(7)), "<img src=x onerror=alert(1)>"]
        self.sizes = np.ones(8)
        self.styles = ["true", "false"]
        self.bands_shown: list[str] = []
        self.can_shuffle = True
        self.are_clusters = True

    def members(self, item, draw=0):
        return [(item * 4 + n + draw) % 32 for n in range(4)]

    def image(self, number, style="true"):
        if number >= 32:
            raise IndexError(number)
        return draw(number, style), "image/jpeg"

    def place(self, item):
        return None


def main():
    path, port = Path(sys.argv[1]), int(sys.argv[2])
    settings = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    if "password_file" in settings:
        settings["password_file"] = Path(settings["password_file"])
    app.open_items = lambda config: Items()
    while True:
        child = os.fork()
        if child == 0:
            app.serve(app.ServeConfig(store=path, clusters=path, port=port, **settings))
            os._exit(0)
        print(child, flush=True)
        if os.waitpid(child, 0)[1] == 0:
            return  # ended in order


if __name__ == "__main__":
    import uvicorn  # noqa: F401 - before the first fork, too

    main()
