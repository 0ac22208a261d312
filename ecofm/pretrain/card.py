"""The model card that goes with an encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ecofm.escaping import for_markdown

SHOWN = ("loss", "rank", "embedding_std", "alignment", "uniformity", "knn")


def write_card(
    folder: Path, config: dict[str, Any], fields: dict[str, Any], metrics: Path, attribution: str
) -> None:
    """Write README.md into an encoder's folder: what it is, how it was made, how to load it.

    `config` is the run's, `fields` is what config.json holds.
    """
    contract, encoder = fields["contract"], fields["encoder"]
    gsd = contract["gsd_m"]
    rows = {
        "backbone": f"{encoder['backbone']}, width {encoder['width']}, pooling "
        f"{encoder['pooling']}, {encoder['words']} words",
        "dimensions": f"{fields['dim']}: "
        + ", ".join(f"{name} {a} to {b - 1}" for name, (a, b) in fields["columns"].items()),
        "bands": ", ".join(contract["bands"]),
        "pixels": f"{contract['dtype']}, {contract['units']} = (stored + {contract['offset']:g}) "
        f"x {contract['scale']:g}, normalised by {encoder['normalization']}",
        "ground resolution": "not known (chips)" if gsd is None else f"{gsd:g} m",
        "method": config["method"]["name"],
        "steps": f"{config['steps']} of {config['batch_size']} pairs, seed {config['seed']}",
        "recipe": fields["recipe"] or "none",
        "initialisation": config["init_weights"] or "random",
        "code": f"ecofm at commit {fields['commit'] or 'unknown'}",
        "data": ", ".join(f"{name} {value[:12]}" for name, value in fields["data"].items()),
    }
    table = "\n".join(f"| {name} | {for_markdown(value)} |" for name, value in rows.items())
    folder.joinpath("README.md").write_text(
        f"""# {for_markdown(encoder["backbone"])}, {for_markdown(config["method"]["name"])}

An encoder of ecofm: Sentinel-2 tiles to embeddings of {fields["dim"]} dimensions.

| | |
|---|---|
{table}

```python
import ecofm

encoder, contract = ecofm.load_encoder("THIS_FOLDER")
embeddings = encoder(pixels, valid)  # as stored: (batch, band, height, width)
```

## Health at the end of training

{_describe_health(metrics)}

## Limits

Trained without labels; it has seen no proxy. Pixels of another ground resolution, other bands or
another radiometric offset give other embeddings: the encoder refuses other bands and number
types, and `ecofm embed` warns when the resolution differs by more than 20 %.

Imagery: {for_markdown(attribution)}.
""",
        encoding="utf-8",
    )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl; those that were damaged are left out.

    They are a record for people: one bad line must not end a run of a week.
    """
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(fields, dict) and ("event" in fields or isinstance(fields.get("step"), int)):
            found.append(fields)
    return found


def _describe_health(metrics: Path) -> str:
    if not metrics.is_file():
        return "Not trained: the weights are the initialisation."
    lines = read_metrics(metrics)
    steps = [line for line in lines if "event" not in line]
    if not steps:
        return f"{metrics.name} tells nothing of it."
    # How often the run was interrupted is no part of it: the same encoder has the same bytes.
    skips = sum(line.get("event") == "skip" for line in lines)
    figures = ", ".join(f"{name} {steps[-1][name]:.3g}" for name in SHOWN if name in steps[-1])
    return f"Step {steps[-1]['step']}: {figures}. {skips} steps skipped."
