"""report.html: one file, pictures inside."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from ecofm.artifact import write_text
from ecofm.escaping import for_html
from ecofm.lettering import save_figure, spell_latin

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
img{max-width:100%;height:auto;border:1px solid #ddd}
pre{overflow-x:auto;background:#f6f6f6;padding:1rem;font-size:13px}
figure{margin:1.5rem 0}figcaption{color:#555}
"""


Picture = Figure | Image.Image | Path


def encode_png(picture: Picture) -> bytes:
    """Return a picture as the bytes of a PNG file."""
    if isinstance(picture, Path):
        return picture.read_bytes()
    buffer = io.BytesIO()
    if isinstance(picture, Figure):
        save_figure(picture, buffer, 110)
    else:
        picture.save(buffer, format="png")
    return buffer.getvalue()


@dataclass(slots=True)
class Page:
    """A report that grows by sections and is written as one file."""

    title: str
    lead: str
    parts: list[str] = field(default_factory=list)

    def add_figure(self, title: str, caption: str, picture: Picture) -> None:
        """Add a picture under a heading."""
        data = base64.b64encode(encode_png(picture)).decode("ascii")
        title, caption = for_html(title), for_html(caption)
        self.parts.append(
            f'<h2>{title}</h2><figure><img alt="{title}: {caption}" '
            f'src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
        )

    def add_text(self, title: str, text: str) -> None:
        """Add preformatted text under a heading."""
        self.parts.append(f"<h2>{for_html(title)}</h2><pre>{for_html(text)}</pre>")

    def add_clusters(self, clusters: Path, scores: pd.DataFrame) -> None:
        """Add the exemplars of clusters, ordered by score."""
        self.add_figure(
            "Clusters",
            "Tiles nearest to the centre of clusters, from the lowest mean score to the highest.",
            draw_cluster_sheet(clusters, scores),
        )

    def write(self, path: Path) -> None:
        """Write the page."""
        title = for_html(self.title)
        body = "\n".join(self.parts)
        write_text(
            path,
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
            f"<body><h1>{title}</h1><p>{for_html(self.lead)}</p>{body}</body></html>\n",
        )


def draw_overview(pictures: list[Picture], path: Path, height_px: int = 480) -> None:
    """Write some pictures side by side, scaled to one height."""
    images = [Image.open(io.BytesIO(encode_png(p))).convert("RGB") for p in pictures]
    scaled = [i.resize((i.width * height_px // i.height, height_px)) for i in images]
    whole = Image.new("RGB", (sum(image.width for image in scaled), height_px), "white")
    for number, image in enumerate(scaled):
        whole.paste(image, (sum(before.width for before in scaled[:number]), 0))
    whole.save(path, optimize=True)


def draw_cluster_sheet(clusters: Path, scores: pd.DataFrame, shown: int = 12) -> Image.Image:
    """Return the exemplars of up to `shown` clusters, from the lowest mean score to the highest."""
    table = pd.read_parquet(clusters / "clusters.parquet")
    means = table.merge(scores, on="tile_id").groupby("item")["score"].mean().sort_values()
    step = max(1, (len(means) - 1) / max(1, min(shown, len(means)) - 1))
    chosen = [means.index[round(i * step)] for i in range(min(shown, len(means)))]
    columns, side, label = 4, 240, 22
    rows = -(-len(chosen) // columns)
    sheet = Image.new("RGB", (columns * side, rows * (side + label)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, item in enumerate(chosen):
        x, y = place % columns * side, place // columns * (side + label)
        exemplars = Image.open(clusters / "exemplars" / f"{item}.png")
        sheet.paste(exemplars.resize((side - 6, side - 6)), (x + 3, y + label))
        draw.text(
            (x + 6, y + 4),
            f"cluster {spell_latin(item, 16)}, mean score {means[item]:+.2f}",
            fill="black",
        )
    return sheet
