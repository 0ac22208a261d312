"""The door of every ranker: what was not said is not learned.

Two questions are put to what a ranker was fitted to. Have the answers anything to do with what
the embeddings show, or would luck fit them as well (`measure_luck`)? And does the higher score win
where the ranker has not seen the answer (`judge_unseen`)?
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd

from ecofm.errors import EcofmError
from ecofm.rank.items import ItemPairs
from ecofm.rank.unseen import Rate, Unseen
from ecofm.types import say

LEVEL = 0.05
"""Answers that have nothing to do with the imagery pass the door so often."""
MIN_ANSWERS, MIN_PLACES = 20, 8
"""Fewer are too few to tell: of rankers from good answers about pairs of tiles the test knows four
in ten from 12 answers, seven from 20 and nine from 30 (docs/LOG.md)."""
FEW_PEOPLE = 3
"""Of fewer, nobody knows who is the odd one out."""
FEW_ITEMS = 10
"""Fewer can be in a good order by luck: two in a hundred orders of five agree with the right one on
all pairs but one."""
FEW_ANSWERS = 100
"""Of fewer, the 90 % interval of how often the higher score won is wider than 16 points."""
FORCE = "give --force (in Hydra force=true) to write it all the same, marked"


class Verdict(Enum):
    """What held-out answers say of a ranker."""

    better = "better than chance"
    chance = "no better than chance"
    few = "too few answers to tell"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the comparisons that a ranker was fitted to say of it."""

    n_people: int
    n_items: int
    n_answers: int
    p: float
    """How often answers and embeddings that were mixed at random fit each other as well."""
    unseen: Unseen | None
    """Held-out comparisons; None when none could be held out."""
    verdict: Verdict

    @property
    def sureness(self) -> float:
        """How much of the squared lead over chance is no luck, 0 to 1; 0 of what is no better."""
        if self.unseen is None or self.verdict is Verdict.chance:
            return 0.0
        lead = max(self.unseen.new.won - 0.5, 0.0)
        return float(max(1 - (self.unseen.new.error / lead) ** 2, 0.0)) if lead else 0.0

    def require(self, said_in: object, *, force: bool) -> None:
        """Warn of few answers; raise EcofmError for a ranker that is no better than chance."""
        self._warn_of_few()
        if self.verdict is not Verdict.chance or force:
            return
        advice = "look for annotators who guess with `ecofm compare report`, "
        if self.n_answers < FEW_ANSWERS:
            advice = f"{self.n_answers} answers may be too few: "
        raise EcofmError(
            f"what {said_in} says gives a ranker that is no better than chance: "
            f"{describe_unseen(self.to_json())}, and answers or embeddings mixed at random fit "
            f"each other as well in {self.p:.0%} of cases (at most {LEVEL:.0%} are accepted); "
            f"{advice}ask for more with `ecofm compare serve`, or {FORCE}."
        )

    def _warn_of_few(self) -> None:
        few = [
            f"{n} {what} (at least {least})"
            for n, what, least in (
                (self.n_people, "annotator(s)", FEW_PEOPLE),
                (self.n_items, "item(s)", FEW_ITEMS),
                (self.n_answers, "answer(s)", FEW_ANSWERS),
            )
            if n < least
        ]
        if few:
            say(
                f"warning: {', '.join(few)} stand behind this ranker; what it says of other places "
                "is uncertain. Ask more people about more items with `ecofm compare serve`."
            )

    def to_json(self) -> dict[str, Any]:
        """Return what the manifest keeps."""
        unseen = self.unseen
        return {
            "verdict": self.verdict.value,
            "p": self.p,
            "level": LEVEL,
            "by_new_people": self.n_people > 1,
            "new_places": _rate_to_json(unseen.new) if unseen else None,
            "one_known_place": _rate_to_json(unseen.known) if unseen and unseen.known else None,
            "consensus_alone": unseen.consensus if unseen else None,
        }

    def tabulate(self) -> pd.DataFrame:
        """Return comparisons, gap, n, won, lower, upper and expected; no row without held-outs.

        First all comparisons, then those of two new places by the gap of their scores.
        """
        columns = ["comparisons", "gap", "n", "won", "lower", "upper", "expected"]
        if self.unseen is None:
            return pd.DataFrame(columns=columns)
        rows = [{"comparisons": "two new places", **_rate_to_json(self.unseen.new)}]
        if self.unseen.known:
            known = _rate_to_json(self.unseen.known)
            alone = {"n": known["n"], "won": self.unseen.consensus}
            rows.append({"comparisons": "a new place and a known one", **known})
            rows.append({"comparisons": "the same by the consensus alone", **alone})
        by_gap = self.unseen.judged.table().assign(comparisons="two new places, by gap")
        return pd.concat([pd.DataFrame(rows), by_gap], ignore_index=True).reindex(columns=columns)


def _rate_to_json(rate: Rate) -> dict[str, float]:
    return {"n": rate.n, "won": rate.won, "lower": rate.lower, "upper": rate.upper}


def weigh_evidence(p: float, pairs: ItemPairs, unseen: Unseen | None) -> Evidence:
    """Return what comparisons say of a ranker; `p` is that of `measure_luck`."""
    counts = pairs.counts.sum(axis=(0, 1))
    items = np.union1d(pairs.left, pairs.right)
    is_few = counts[:2].sum() < MIN_ANSWERS or len(np.unique(pairs.places[items])) < MIN_PLACES
    verdict = Verdict.better
    if p > LEVEL:
        verdict = Verdict.few if is_few else Verdict.chance
    elif unseen is None:
        verdict = Verdict.few
    elif unseen.new.won <= 0.5:
        # Of few, losing half is no proof of anything.
        verdict = Verdict.few if unseen.new.n < FEW_ANSWERS else Verdict.chance
    return Evidence(len(pairs.counts), len(items), int(counts.sum()), p, unseen, verdict)


def describe_unseen(evidence: dict[str, Any]) -> str:
    """Say how often the higher score won where a ranker had seen neither place."""
    rate = evidence["new_places"]
    if rate is None:
        return "no comparison could be held out with something left to learn from"
    by = " by people it had not heard" if evidence.get("by_new_people") else ""
    return (
        f"on {rate['n']} comparisons of places that it had not seen{by}, the higher score won "
        f"{_say_rate(rate)}; chance is 50%, and the consensus alone knows nothing of them"
    )


def describe_known(evidence: dict[str, Any]) -> str | None:
    """Say the same of comparisons with one known place, beside the consensus alone."""
    rate = evidence.get("one_known_place")
    if rate is None or rate["n"] < MIN_ANSWERS:
        return None
    return (
        f"on {rate['n']} of a new place with a known one, the higher score won {_say_rate(rate)}; "
        "the consensus of the other comparisons alone named the winner of "
        f"{evidence['consensus_alone']:.0%}"
    )


def _say_rate(rate: dict[str, float]) -> str:
    return f"{rate['won']:.0%} [{rate['lower']:.0%}, {rate['upper']:.0%}]"


def require_forced(manifest: dict[str, Any], out: object, *, force: bool) -> None:
    """Raise EcofmError for a ranker of an earlier call that is no better than chance."""
    verdict = (manifest.get("evidence") or {}).get("verdict")
    if verdict == Verdict.chance.value and not force:
        raise EcofmError(
            f"{out} holds the ranker of the same call already, but it is no better than chance; "
            f"choose another --out with better answers, or {FORCE}."
        )


def describe_verdict(manifest: dict[str, Any]) -> str | None:
    """Return what must be said of a ranker wherever it is used; None of a good or an old one."""
    verdict = (manifest.get("evidence") or {}).get("verdict")
    if verdict == Verdict.chance.value:
        return "the ranker is no better than chance and was written with --force: believe no score"
    if verdict == Verdict.few.value:
        return "the ranker has too few answers to tell whether it is better than chance"
    return None


def say_evidence(manifest: dict[str, Any]) -> None:
    """Say how a ranker did on comparisons that it had not seen, and what follows."""
    evidence = manifest.get("evidence") or {}
    if "new_places" in evidence:
        lines = [describe_unseen(evidence), describe_known(evidence)]
        for line in filter(None, lines):
            say(f"{line[0].upper()}{line[1:]}.")
        rate = evidence["new_places"]
        if evidence["verdict"] == Verdict.better.value and rate and rate["lower"] <= 0.5:
            say(
                "warning: the interval reaches chance: the answers are too few, or contradict each "
                "other too much, to tell how good the ranker is."
            )
    if warning := describe_verdict(manifest):
        say(f"warning: {warning}.")
