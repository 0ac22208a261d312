"""The door of every ranker: what was not said is not learned.

Two questions are put to what a ranker was fitted to. Have the answers anything to do with what the
embeddings show? The places' embeddings are exchanged at random; where answers fit them as well
then, nobody said anything that can be learned. The answers stay as they are, so that it does not
matter how they hang together: a random ordering of 22 clusters is 231 consistent comparisons and
no evidence. And does the higher score win where the ranker has not seen the answer?
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array, csr_array

from ecofm.errors import EcofmError
from ecofm.rank.items import Indices, ItemPairs
from ecofm.rank.losses import Floats
from ecofm.rank.unseen import Mask, Rate, Unseen
from ecofm.types import say

LEVEL = 0.05
"""Answers that have nothing to do with the imagery pass the door so often."""
N_EXCHANGES, N_IF_MANY, MANY_ITEMS = 199, 39, 10_000
"""Of many items a few exchanges tell as well, and each takes its time."""
PENALTY = 3.0
"""Of the test, in mean eigenvalues: of .3 to 30 the best for 20 or 30 pairs of tiles, and within
two hundredths of the best for an ordering of 8 clusters."""
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
    """How often exchanged embeddings fit the answers as well."""
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
            f"{describe_unseen(self.to_json())}, and embeddings exchanged between places at random "
            f"fit the answers as well in {self.p:.0%} of cases (less than {LEVEL:.0%} is asked "
            f"for); {advice}ask for more with `ecofm compare serve`, or {FORCE}."
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
    """Return what comparisons say of a ranker; `p` is that of exchanged embeddings."""
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


def exchange_in_comparisons(
    features: Floats, pairs: ItemPairs, random: np.random.Generator
) -> float:
    """Return how often exchanged features fit the comparisons as well as the true ones, 0 to 1."""
    items = np.union1d(pairs.left, pairs.right)
    left, right = np.searchsorted(items, pairs.left), np.searchsorted(items, pairs.right)
    counts, n = pairs.summed, len(items)
    net, decided = counts[:, 0] - counts[:, 1], counts[:, 0] + counts[:, 1]
    lead = (np.bincount(left, net, n) - np.bincount(right, net, n)).astype(np.float64)
    rows, columns = np.r_[left, right], np.r_[right, left]
    met = coo_array((np.r_[decided, decided], (rows, columns)), shape=(n, n))
    own = coo_array((met.sum(axis=1), (np.arange(n), np.arange(n))), shape=(n, n))
    several = np.array([len(pairs.members[item]) > 1 for item in items])
    places = np.unique(pairs.places[items], return_inverse=True)[1]
    return exchange_places(
        features[items], lead[:, None], csr_array(own - met), places, several, random
    )


def exchange_places(
    features: Floats,
    said: Floats,
    graph: csr_array,
    places: Indices,
    several: Mask,
    random: np.random.Generator,
) -> float:
    """Return the p value of a permutation test of what was `said` of items, (item, column).

    The statistic is that of a score test under a ridge penalty: u' (F' G F + penalty)^-1 u with
    u = F' said, the features F and the `graph` G: who was compared with whom. Features are
    exchanged between places as wholes, where both have as many items, of one or of `several` tiles.
    """
    groups = _group_places(places, several)

    def fit(of_items: Floats) -> float:
        met = of_items.T @ (graph @ of_items)
        pull = PENALTY * float(np.trace(met)) / len(met)
        found = of_items.T @ said
        return float((found * np.linalg.solve(met + pull * np.eye(len(met)), found)).sum())

    middle = features.mean(axis=0)
    if np.allclose(features, middle, rtol=1e-9, atol=1e-12):
        return 1.0
    features = features - middle
    reached, n_as_good = fit(features) * (1 - 1e-9), 1
    n_exchanges = N_EXCHANGES if len(features) < MANY_ITEMS else N_IF_MANY
    for _ in range(n_exchanges):
        drawn = np.arange(len(features))
        for rows in groups:
            drawn[rows] = rows[random.permutation(len(rows))]
        n_as_good += fit(features[drawn]) >= reached
    return n_as_good / (n_exchanges + 1)


def _group_places(places: Indices, several: Mask) -> list[Indices]:
    """Return the items of places that may change places with each other, (place, item) each."""
    order = np.lexsort((several, places))
    ends = np.cumsum(np.bincount(places))
    groups: dict[tuple[bool, ...], list[Indices]] = {}
    for items in np.split(order, ends[:-1]):
        groups.setdefault(tuple(several[items].tolist()), []).append(items)
    return [np.array(items) for items in groups.values()]


def describe_unseen(evidence: dict[str, Any]) -> str:
    """Say how often the higher score won where a ranker had seen neither place."""
    rate = evidence["new_places"]
    if rate is None:
        return "no comparison could be held out with something left to learn from"
    by = " by people it had not heard" if evidence["by_new_people"] else ""
    return (
        f"on {rate['n']} comparisons of places that it had not seen{by}, the higher score won "
        f"{_say_rate(rate)}; chance is 50%, and the consensus alone knows nothing of them"
    )


def describe_known(evidence: dict[str, Any]) -> str | None:
    """Say the same of comparisons with one known place, beside the consensus alone."""
    rate = evidence["one_known_place"]
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
    verdict = manifest.get("evidence", {}).get("verdict")
    if verdict == Verdict.chance.value and not force:
        raise EcofmError(
            f"{out} holds the ranker of the same call already, but it is no better than chance; "
            f"choose another --out with better answers, or {FORCE}."
        )


def describe_verdict(manifest: dict[str, Any]) -> str | None:
    """Return what must be said of a ranker wherever it is used; None of a good or an old one."""
    verdict = manifest.get("evidence", {}).get("verdict")
    if verdict == Verdict.chance.value:
        return "the ranker is no better than chance and was written with --force: believe no score"
    if verdict == Verdict.few.value:
        return "the ranker has too few answers to tell whether it is better than chance"
    return None


def say_evidence(manifest: dict[str, Any]) -> None:
    """Say how a ranker did on comparisons that it had not seen, and what follows."""
    evidence = manifest.get("evidence", {})
    if "new_places" in evidence:
        lines = [describe_unseen(evidence), describe_known(evidence)]
        for line in filter(None, lines):
            say(f"{line[0].upper()}{line[1:]}.")
        rate = evidence["new_places"]
        if evidence["verdict"] == Verdict.better.value and rate["lower"] <= 0.5:
            say(
                "warning: the interval reaches chance: the answers are too few, or contradict each "
                "other too much, to tell how good the ranker is."
            )
    if warning := describe_verdict(manifest):
        say(f"warning: {warning}.")
