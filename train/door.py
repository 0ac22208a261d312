"""What every entry point does with whatever stops it: one sentence and an exit code."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ecofm.faults import door


def at_the_door(main: Callable[..., None]) -> Callable[..., None]:
    """Wrap an entry point, inside Hydra and around it, as the `ecofm` command wraps its verbs."""

    @functools.wraps(main)
    def guarded(*args: Any) -> None:
        # Else Hydra prints what it cannot compose in lines of its own, and exits with 1.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        with door(usage=(HydraException, OmegaConfBaseException)):
            main(*args)

    return guarded
