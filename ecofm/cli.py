"""The `ecofm` command: one verb a stage, each imported only when it is used."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App
from cyclopts.exceptions import CycloptsError

from ecofm import __version__
from ecofm.faults import WRONG_USAGE, door

VERBS = {
    "demo": "Run the whole chain and end with pictures.",
    "fetch": "Download a public data set that the benchmarks use.",
    "tile": "Turn scenes or chips into an archive of tiles.",
    "normalise": "Bring the periods of an archive to one radiometry.",
    "pretrain": "Train an encoder on archives, without labels.",
    "embed": "Turn tiles into embeddings.",
    "cluster": "Group like tiles.",
    "rank": "Fit a ranker to people's comparisons.",
    "transfer": "Move a ranker to a new country by a few comparisons there.",
    "score": "Score tiles.",
    "change": "Map the change of scores between two periods.",
    "benchmark": "Check scores against proxies, beside plain baselines.",
    "robustness": "Measure how a score depends on haze, colour, gaps and the year.",
    "show": "Print a summary of any artifact, and draw its pictures.",
}


def build_app() -> App:
    """Return the command with its verbs."""
    app = App(
        name="ecofm",
        version=__version__,
        help="Measure economic development from Sentinel-2, with people in the loop.",
        default_parameter=None,
        suppress_keyboard_interrupt=False,
    )
    for verb, text in VERBS.items():
        app.command(f"ecofm.verbs.{verb}:{verb}", name=verb, help=text)
    compare = App(name="compare", help="People compare: serve the web page, import, export...")
    for verb, text in {
        "serve": "Serve the page on which people compare.",
        "import": "Read comparisons or orderings into a store.",
        "invite": "Make secret links, one for each annotator.",
        "names": "List the annotators that a store knows.",
        "recover": "Save what can be read of a damaged store.",
        "export": "Write a store's comparisons to a file.",
        "consensus": "Write what the annotators agree on.",
        "report": "Write agreement, disputes and contradictions, with pictures.",
    }.items():
        compare.command(f"ecofm.verbs.compare:{verb}_", name=verb, help=text)
    app.command(compare)
    return app


def main(tokens: Sequence[str] | None = None) -> None:
    """Run a verb; whatever stops it ends in one sentence and an exit code, see `ecofm.faults`."""
    with door(None if tokens is None else ["ecofm", *tokens]):
        try:
            build_app()(tokens, exit_on_error=False, print_error=True, result_action="return_value")
        except CycloptsError:  # which it has printed
            sys.exit(WRONG_USAGE)
