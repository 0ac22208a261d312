"""Label Studio's JSON of the Pairwise tag, read and written.

A task has `data` with the two items and `annotations`, each with `completed_by` and a `result`
whose entry of type `pairwise` has `value.selected` `left` or `right`. A cancelled annotation is a
skip. The tag knows no tie: ours are a `choices` result of the one choice `tie`, as its
documentation advises for similarity, and any project with `<Choices>` beside the tag reads them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ecofm.compare.comparison import Comparison, check_comparison
from ecofm.errors import ComparisonError

ITEM_KEYS = ("left", "right")
EXPECTED = (
    'expected Label Studio tasks with "data": {"left": ..., "right": ...} and "annotations" of '
    "the Pairwise tag; export the project as JSON"
)


def read_labelstudio(path: Path, text: str) -> list[Comparison]:
    """Return the comparisons of an export; raises ComparisonError naming the task at fault."""
    try:
        tasks = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ComparisonError(f"{path} is not JSON ({str(error)[:80]}); {EXPECTED}.") from error
    if not isinstance(tasks, list):
        raise ComparisonError(f"{path} holds no list of tasks, {EXPECTED}.")
    rows = []
    for number, task in enumerate(tasks, start=1):
        try:
            rows += _read_task(task)
        except ComparisonError as error:
            raise ComparisonError(f"{path}, task {number}: {error}") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise ComparisonError(
                f"{path}, task {number}: {type(error).__name__} {error}; {EXPECTED}."
            ) from error
    if not rows:
        raise ComparisonError(f"{path} holds no annotation, {EXPECTED}.")
    return rows


def _read_task(task: dict[str, Any]) -> list[Comparison]:
    left, right = (str(task["data"][key]) for key in ITEM_KEYS)
    rows = []
    for annotation in task["annotations"]:
        outcome = _read_outcome(annotation)
        rows.append(check_comparison(_read_annotator(annotation), left, right, outcome))
    return rows


def _read_outcome(annotation: dict[str, Any]) -> str:
    if annotation.get("was_cancelled"):
        return "skip"
    for entry in annotation["result"]:
        value = entry.get("value", {})
        if entry.get("type") == "pairwise" and value.get("selected") in ITEM_KEYS:
            return str(value["selected"])
        if entry.get("type") == "choices" and value.get("choices") == ["tie"]:
            return "tie"
    raise ComparisonError(
        f"an annotation selects neither left, right nor the choice tie; {EXPECTED}."
    )


def _read_annotator(annotation: dict[str, Any]) -> str:
    """Return the annotator: an e-mail address or a number, by how the project was exported."""
    found = annotation["completed_by"]
    return str(found["email"] if isinstance(found, dict) else found)


def write_labelstudio(rows: Sequence[Comparison]) -> str:
    """Return an export, one task a pair, that Label Studio imports and `read_labelstudio` reads."""
    tasks: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        pair = (row.left, row.right)
        data = dict(zip(ITEM_KEYS, pair, strict=True))
        task = tasks.setdefault(pair, {"id": len(tasks) + 1, "data": data, "annotations": []})
        skipped = row.outcome == "skip"
        value: dict[str, Any] = {"selected": row.outcome}
        kind = "pairwise"
        if row.outcome == "tie":
            kind, value = "choices", {"choices": ["tie"]}
        entry = {"from_name": kind, "to_name": "left,right", "type": kind, "value": value}
        task["annotations"].append(
            {
                "completed_by": {"email": row.annotator},
                "was_cancelled": skipped,
                "result": [] if skipped else [entry],
            }
        )
    return json.dumps(list(tasks.values()), indent=1, ensure_ascii=False) + "\n"
