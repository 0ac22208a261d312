"""ecofm measures economic development from Sentinel-2 with people in the loop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecofm.pretrain.encoders import Encoder
    from ecofm.types import Contract

__version__ = "0.1.0"


def load_encoder(path: str | Path) -> tuple[Encoder, Contract]:
    """Return the encoder that `pretrain` wrote, in eval mode, and its radiometric contract.

    `path` is the run folder or its `encoder/`. Needs neither Lightning nor Hydra. Raises
    ArtifactError when the folder is not an encoder.
    """
    from ecofm.pretrain.opening import load

    return load(Path(path))
