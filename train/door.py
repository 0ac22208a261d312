"""What every entry point does with whatever stops it: one sentence and an exit code."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ecofm.errors import EcofmError, UsageError
from ecofm.faults import door

REFUSED = ("--config-path", "--config-name", "-cp", "-cn", "hydra.searchpath", "+hydra.searchpath")
"""What would put another config in the place of ours, or import a package to find one."""
SILENT = {"version": 1, "root": None, "disable_existing_loggers": False}
"""Hydra's logging of the name `none`; any other may name code, which is imported and called."""
PLUGINS = ("hydra.", "hydra_plugins.")


def at_the_door(main: Callable[..., None]) -> Callable[..., None]:
    """Wrap an entry point inside Hydra as the `ecofm` command wraps its verbs."""

    @functools.wraps(main)
    def guarded(*args: Any) -> None:
        with door(usage=(HydraException, OmegaConfBaseException)):
            main(*args)

    return guarded


def enter(main: Callable[[], None]) -> None:
    """Call what Hydra made of an entry point; a config that it cannot compose ends it with 2."""
    # Else Hydra prints what it cannot compose in lines of its own, and exits with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with door(usage=(OmegaConfBaseException,)):
        for token in sys.argv[1:]:
            if token.partition("=")[0].startswith(REFUSED):
                raise UsageError(
                    f"{token} is not taken; give --config-dir DIR for configs of your own, such "
                    "as DIR/recipe/NAME.yaml for recipe=NAME."
                )
        try:
            main()
        except HydraException as error:
            raise UsageError(_explain(error)) from error
        except (OmegaConfBaseException, EcofmError, OSError, MemoryError):
            raise
        except Exception as error:  # Hydra raises nearly anything for a config that is none
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise UsageError(f"the config cannot be composed ({reason}).") from error


def _explain(error: HydraException) -> str:
    """Return what Hydra could not compose, and why, without its advice for other programs."""
    lines = [line.strip() for line in str(error).splitlines()]
    known = [line for line in lines if line and not line.startswith(("To append", "See https"))]
    reason = str(error.__cause__ or "").partition("\n")[0]
    return " ".join(known) + (f" ({reason})" if reason and reason not in " ".join(known) else "")


def require_no_code(config: DictConfig) -> None:
    """Raise UsageError for a composed config in which Hydra's own part names code to run.

    A recipe from elsewhere may set it, and Hydra imports and calls what it finds there.
    """
    hydra = OmegaConf.to_container(config.hydra, resolve=False) if "hydra" in config else {}
    assert isinstance(hydra, dict)
    job = hydra.get("job") or {}
    parts = {
        "hydra.callbacks": hydra.get("callbacks") or {},
        "hydra.job.env_set": job.get("env_set") or {},
        "hydra.job_logging": {} if hydra.get("job_logging") == SILENT else hydra.get("job_logging"),
        "hydra.hydra_logging": (
            {} if hydra.get("hydra_logging") == SILENT else hydra.get("hydra_logging")
        ),
    }
    for name, found in parts.items():
        if found:
            raise UsageError(f"a config sets {name}, which may name code to run; take it out.")
    for name in ("launcher", "sweeper"):
        _require_plugin(f"hydra.{name}", hydra.get(name) or {})
    _require_no_target(
        "", OmegaConf.to_container(OmegaConf.masked_copy(config, _own_keys(config)), resolve=False)
    )


def _own_keys(config: DictConfig) -> list[Any]:
    return [key for key in config if key != "hydra"]


def _require_plugin(name: str, found: Any) -> None:
    """Raise UsageError unless Hydra's part is one of its own or installed plugins."""
    target = str(found.get("_target_", ""))
    if target and not target.startswith(PLUGINS):
        raise UsageError(f"{name}._target_ is {target[:80]}, which is no plugin of Hydra.")
    for key, value in found.items():
        if key != "_target_":
            _require_no_target(f"{name}.{key}", value)


def _require_no_target(name: str, value: Any) -> None:
    """Raise UsageError where a config names something to be imported and called."""
    if isinstance(value, dict):
        for key, held in value.items():
            inner = f"{name}.{key}".removeprefix(".")
            if key in ("_target_", "_convert_", "_recursive_", "_partial_", "_args_"):
                raise UsageError(f"a config has {inner}; a config holds values and names no code.")
            _require_no_target(inner, held)
    elif isinstance(value, list):
        for held in value:
            _require_no_target(name, held)


def guard_composition() -> None:
    """Have every config that Hydra composes judged before Hydra itself reads it.

    All of its ways (run, multirun, compose) pass through this one method; callbacks and logging
    are called before the entry point is.
    """
    compose = ConfigLoaderImpl.load_configuration
    if getattr(compose, "is_guarded", False):
        return

    @functools.wraps(compose)
    def guarded(*args: Any, **options: Any) -> DictConfig:
        config = compose(*args, **options)
        require_no_code(config)
        return config

    guarded.is_guarded = True  # type: ignore[attr-defined]
    ConfigLoaderImpl.load_configuration = guarded  # type: ignore[method-assign]
