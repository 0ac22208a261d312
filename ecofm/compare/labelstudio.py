"""Label Studio's exports of the Pairwise tag, read and written.

Its JSON has tasks: `data` with the two items and `annotations`, each with `completed_by` and a
`result` whose entry of type `pairwise` has `value.selected` `left` or `right`. A cancelled
annotation is a skip. The tag knows no tie: ours are a `choices` result of the one choice `tie`, as
its documentation advises for similarity, and any project with `<Choices>` beside the tag reads
them. Its JSON-MIN and CSV have one record an annotation: the task's data, `annotator`, and under
each control's own name what it says, such as `[{"selected": "left"}]` or, of `<Choices>`, `tie`.
Predictions and drafts are nobody's answers, and not read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ecofm.compare.answers import Answers
from ecofm.compare.comparison import (
    OUTCOMES,
    Comparison,
    UnansweredError,
    check_comparison,
    list_names,
    quote,
    refuse_decimals,
)
from ecofm.errors import ComparisonError

ITEM_KEYS = ("left", "right")
EXPECTED = (
    'expected Label Studio tasks with "data": {"left": ..., "right": ...} and "annotations" of '
    "the Pairwise tag; export the project as JSON"
)
FLAT_KEYS = ("annotator", "annotation_id", *ITEM_KEYS)
"""What every record of JSON-MIN and CSV has, besides `NO_CONTROLS` and the controls."""
NO_CONTROLS = {*FLAT_KEYS, "id", "created_at", "updated_at", "lead_time", "agreement"}


def read_labelstudio(path: Path, text: str) -> Answers:
    """Return the answers of an export; raises ComparisonError when it is none, or has no answer."""
    tasks = parse_json(path, text)
    answers = Answers(path, "labelstudio")
    n_predicted = 0
    for number, task in enumerate(tasks, start=1):
        place = f"task {number}"
        if not isinstance(task, dict):
            answers.reject(place, ComparisonError(f"it is {quote(str(task))}; {EXPECTED}."))
        elif "annotations" in task or "data" in task:
            n_predicted += bool(task.get("predictions"))
            _read_task(answers, place, task)
        else:
            answers.take(place, partial(read_flat, task))
    refuse_decimals(path, _list_items(tasks))
    if not answers.n_good and not answers.rejected:
        found = "predictions of a model and no annotation" if n_predicted else "no annotation"
        raise ComparisonError(f"{path} holds {found}, {EXPECTED}.")
    return answers


def parse_json(path: Path, text: str) -> list[Any]:
    """Return the tasks of a JSON file; raises ComparisonError when it holds no list of them."""
    try:
        tasks = json.loads(text)
    except (ValueError, RecursionError) as error:
        found = "not JSON"
        if getattr(error, "msg", "") == "Extra data":
            found = "not one JSON text but several, one a line perhaps"
        raise ComparisonError(f"{path} is {found} ({str(error)[:80]}); {EXPECTED}.") from error
    if isinstance(tasks, dict) and {"data", "annotations"} <= set(tasks):
        return [tasks]
    if not isinstance(tasks, list):
        raise ComparisonError(f"{path} holds no list of tasks, {EXPECTED}.")
    return tasks


def _read_task(answers: Answers, place: str, task: dict[str, Any]) -> None:
    """Take each annotation of a task; one that has none yet says nothing, and no fault is in it."""
    annotations = task.get("annotations")
    if not isinstance(annotations, list):
        found = "no list of annotations" if annotations is None else quote(str(annotations))
        answers.reject(place, ComparisonError(f"it has {found}; {EXPECTED}."))
        return
    for number, annotation in enumerate(annotations, start=1):
        answers.take(f"{place}, annotation {number}", partial(_read_annotation, task, annotation))


def _read_annotation(task: dict[str, Any], annotation: Any) -> list[Comparison]:
    if not isinstance(annotation, dict):
        raise ComparisonError(f"it is {quote(str(annotation))}; {EXPECTED}.")
    outcome = "skip" if annotation.get("was_cancelled") else _read_result(annotation.get("result"))
    annotator = _read_annotator(annotation.get("completed_by"))
    left, right = _read_items(task.get("data"))
    return [check_comparison(annotator, left, right, outcome)]


def _read_items(data: Any) -> list[str]:
    """Return the names of the two items, whatever the case of `left` and `right`."""
    known = {str(key).strip().casefold(): value for key, value in _as_dict(data).items()}
    if not set(ITEM_KEYS) <= set(known):
        found = list_names([quote(str(key)) for key in _as_dict(data)]) or "nothing"
        raise ComparisonError(f"its data holds {found}; {EXPECTED}.")
    for key in ITEM_KEYS:
        if isinstance(known[key], bool) or not isinstance(known[key], str | int | float):
            raise ComparisonError(
                f"its item {key} is {quote(str(known[key]))}, expected a name; correct the task."
            )
    return [str(known[key]) for key in ITEM_KEYS]


def _list_items(tasks: list[Any]) -> list[str]:
    """Return what the tasks' items are called, as far as they tell."""
    data = [_as_dict(_as_dict(task).get("data", task)) for task in tasks]
    return [str(value) for own in data for value in map(own.get, ITEM_KEYS) if value is not None]


def _read_annotator(found: Any) -> str:
    """Return the annotator: an e-mail address or a number, by how the project was exported."""
    if isinstance(found, dict):
        found = next((found[key] for key in ("email", "username", "id") if found.get(key)), None)
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        raise ComparisonError(
            'it does not say in "completed_by" who made it; export the project again, with '
            "annotators."
        )
    return str(found)


def _read_result(result: Any) -> str:
    """Return the one outcome that the entries of a result select."""
    entries = [_as_dict(entry) for entry in result] if isinstance(result, list) else []
    chosen = [
        _as_dict(entry.get("value"))
        for entry in entries
        if entry.get("type") in ("pairwise", "choices")
    ]
    return _choose(chosen)


def _read_value(value: dict[str, Any]) -> list[str]:
    """Return the outcomes that a value of the Pairwise tag or of choices stands for."""
    selected, choices = value.get("selected"), value.get("choices")
    found = [selected] if selected is not None else choices if isinstance(choices, list) else []
    plain = [" ".join(str(word).split()).casefold() for word in found]
    return [word for word in plain if word in OUTCOMES]


def _choose(values: Sequence[dict[str, Any]]) -> str:
    """Return the one outcome that the values of an annotation stand for."""
    outcomes = sorted({word for value in values for word in _read_value(value)})
    if not values:
        raise UnansweredError("its result is empty: it was submitted without a choice.")
    if len(outcomes) != 1:
        found = f"both {' and '.join(outcomes)}" if outcomes else "neither left, right nor tie"
        raise ComparisonError(f"it selects {found}; correct it in Label Studio and export again.")
    return outcomes[0]


def read_flat(record: Mapping[str, Any]) -> list[Comparison]:
    """Return the one comparison of a record of JSON-MIN or, its cells as text, of CSV."""
    missing = [key for key in FLAT_KEYS if key not in record]
    if missing:
        found = list_names([quote(key) for key in record]) or "nothing"
        raise ComparisonError(f"it holds {found}; {EXPECTED}.")
    controls = [value for key, value in record.items() if key not in NO_CONTROLS]
    values = [value for cell in controls for value in _read_cell(cell)]
    outcome = _choose(values + _read_words(controls, beside=values))
    annotator = _read_annotator(record["annotator"])
    left, right = _read_items(record)
    return [check_comparison(annotator, left, right, outcome)]


def _read_cell(value: Any) -> list[dict[str, Any]]:
    """Return what a control says as a value or a list of values, in CSV as JSON."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return []
    return [part for part in (value if isinstance(value, list) else [value]) if _as_dict(part)]


def _read_words(controls: Sequence[Any], beside: Sequence[Any]) -> list[dict[str, Any]]:
    """Return what controls of `<Choices>` say: the word alone.

    The task's data may hold words too, so beside a value of the Pairwise tag only a tie is read.
    """
    known = {"tie"} if beside else set(OUTCOMES)
    words = [value for value in controls if isinstance(value, str)]
    return [{"choices": [word]} for word in words if word.strip().casefold() in known]


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


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
