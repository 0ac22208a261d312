"""The model card shows what it is told, and obeys none of it."""

import html
import json

from ecofm.pretrain.card import write_card

HOSTILE = "<script>alert(1)</script> | [a](http://b) \n# c $x$ `d`"


def test_a_card_shows_hostile_fields_as_they_are(tmp_path):
    config = {"method": {"name": HOSTILE}, "steps": 1, "batch_size": 2, "seed": 0}
    config["init_weights"] = HOSTILE
    contract = {"gsd_m": 10.0, "bands": [HOSTILE, "B02"], "dtype": "uint16", "units": HOSTILE}
    contract |= {"offset": 0.0, "scale": 1.0}
    encoder = {"backbone": HOSTILE, "width": 8, "pooling": HOSTILE, "words": 0}
    encoder["normalization"] = HOSTILE
    fields = {"contract": contract, "encoder": encoder, "dim": 4, "columns": {HOSTILE: (0, 4)}}
    fields |= {"recipe": HOSTILE, "commit": HOSTILE, "data": {HOSTILE: "0" * 64}}
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(json.dumps({"step": 1, "loss": 0.5}) + "\n")
    write_card(tmp_path, config, fields, metrics, HOSTILE)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "<" not in text and "](http" not in text and "$" not in text
    assert (
        text.count("`d`") == 0 and [line for line in text.splitlines() if line == "# c $x$"] == []
    )
    assert "<script>alert(1)</script>" in html.unescape(text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows and all(line.count("|") == 3 for line in rows)
