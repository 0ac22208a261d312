"""What every entry point does with bad data: one sentence, exit 1, no traceback."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ecofm.errors import EcofmError
from ecofm.types import say


def at_the_door(main: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Wrap an entry point: bad data exits with 1, wrong usage with 2."""

    @functools.wraps(main)
    def guarded(config: DictConfig) -> None:
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            say(f"error: {', '.join(missing)} must be given, as {missing[0]}=VALUE.")
            sys.exit(2)
        try:
            main(config)
        except EcofmError as error:
            say(f"error: {error}")
            sys.exit(1)
        except (ValueError, OmegaConfBaseException) as error:
            say(f"error: {error}")
            sys.exit(2)

    return guarded
