"""python -m benchmarks.gpu.table: the tables of docs/PRETRAIN.md from benchmarks/results/gpu_*."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ecofm.artifact import read_json, write_text

ROOT = Path(__file__).parents[2]
RESULTS, DOCS = ROOT / "benchmarks" / "results", ROOT / "docs" / "PRETRAIN.md"
BEGIN, END = "<!-- gpu tables: made by `python -m benchmarks.gpu.table` -->", "<!-- end -->"
NOT_TRAINING = ("archive", "device", "views", "embedding", "resume", "finetuning", "faiss")


def render(found: dict[str, Any]) -> str:
    """Return what one device showed, as Markdown."""
    sections: dict[str, Any] = found["sections"]
    parts = [_head(found), _training(sections)]
    tables = {"views": _views, "embedding": _embedding, "resume": _resume}
    parts += [
        tables[name](sections[name])
        for name in tables
        if name in sections and "failed" not in sections[name]
    ]
    parts += [_lines(sections)]
    return "\n\n".join(part for part in parts if part)


def _head(found: dict[str, Any]) -> str:
    device, versions = found["device"], found["versions"]
    reached = found["sections"].get("device", {})
    text = f"**{device['name']}**, driver {device['driver']}, torch {versions['torch']}"
    if "matmul_tflop_s" in reached:
        text += (
            f"; a bf16 matrix product reaches {reached['matmul_tflop_s']:.0f} TFLOP/s, its memory "
            f"{reached['memory_gb_s']:.0f} GB/s, and copies to it {reached['to_device_gb_s']:.1f} "
            "GB/s"
        )
    return f"{text}."


def _training(sections: dict[str, Any]) -> str:
    rows = []
    for name, found in sections.items():
        if name in NOT_TRAINING or "failed" in found:
            continue
        for way in found["ratio"]:
            memory, whole = (f"{way}, {what}" for what in ("in memory", "end to end"))
            rates, peak = found["images_s"], found["peak_gib"][whole]
            used = found["utilisation"][memory]
            rows.append(
                f"| {name}, {found['pairs']} pairs, {way} | {rates[memory]:,.0f} | "
                f"{rates[whole]:,.0f} | {found['ratio'][way]:.2f} | "
                f"{'' if used is None else f'{used:.2f}'} | {found['loader_images_s']:,.0f} | "
                f"{'' if peak is None else f'{peak:.1f}'} |"
            )
    if not rows:
        return ""
    head = (
        "| training | images/s in memory | end to end | ratio | utilisation | loader alone | GiB |"
    )
    return _table(head, rows)


def _table(head: str, rows: list[str]) -> str:
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *rows])


def _views(found: dict[str, Any]) -> str:
    rows = [
        f"| {name} | {one['draw_ms']:.1f} | {one['copy_ms']:.1f} | {one['render_ms']:.1f} | "
        f"{one.get('render_without_kernel_ms', one['render_ms']):.1f} | {one['views_s']:,.0f} |"
        for name, one in found.items()
        if isinstance(one, dict)
    ]
    head = (
        "| views | drawn, ms | copied, ms | rendered, ms | without the kernel | views/s, one after "
        "another |"
    )
    return _table(head, rows)


def _embedding(found: dict[str, Any]) -> str:
    rows = [
        f"| {name} | {'' if one['tiles_s'] is None else format(one['tiles_s'], ',.0f')} | "
        f"{one['model_only_tiles_s']:,.0f} | {one['largest_difference_from_cpu']:.1e} |"
        for name, one in found.items()
        if isinstance(one, dict)
    ]
    head = "| embedding | tiles/s | the model alone | largest difference from the CPU, in std |"
    return _table(head, rows)


def _resume(found: dict[str, Any]) -> str:
    rows = [
        f"| {kernels}, {what} | {'yes' if one['same_bytes'] else 'no'} | "
        f"{one['largest_difference']:.1e} |"
        for kernels in ("default", "deterministic")
        for what, one in found[kernels].items()
        if isinstance(one, dict)
    ]
    head = "| kernels, against a whole run | same bytes | largest difference of a weight |"
    return _table(head, rows)


def _lines(sections: dict[str, Any]) -> str:
    lines = []
    tuned = sections.get("finetuning", {})
    if "images_s" in tuned:
        lines.append(
            f"Fine-tuning trains on the {tuned['trained_on']} at {tuned['images_s']:,.0f} images/s."
        )
    faiss = sections.get("faiss", {})
    for where in ("cpu", "gpu"):
        if where in faiss:
            lines.append(f"FAISS k-means on the {where} takes {faiss[where]['kmeans_s']:.2f} s.")
    if "note" in faiss:
        lines.append(f"{faiss['note'].capitalize()}.")
    lines += [
        f"`{name}` failed: {found['failed']}"
        for name, found in sections.items()
        if "failed" in found
    ]
    return "\n".join(lines)


def write_docs(docs: Path = DOCS, results: Path = RESULTS) -> None:
    """Put the tables of all devices between the marks in the docs."""
    text = docs.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    tables = [render(read_json(path)) for path in sorted(results.glob("gpu_*.json"))]
    middle = "\n\n".join(tables) or "No GPU has been at hand."
    write_text(docs, f"{before}{BEGIN}\n\n{middle}\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    write_docs()
