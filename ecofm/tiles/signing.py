"""`--sign module:function`: which code may make URLs readable.

To import a module is to run it. So it must be of a package that somebody installed into this
Python's environment (an editable install counts), and not what happens to lie in the current
folder, on PYTHONPATH, or in Python's own library, whose functions do anything with a text.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import json
import re
import site
import sysconfig
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlparse

from ecofm.errors import UsageError
from ecofm.tiles.rasters import Sign

NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def load_sign(name: str) -> Sign:
    """Return the function that `module:function` names.

    Raises UsageError when there is none, or its module is not installed in the environment; such
    a module is not imported.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"--sign {name}: expected module:function.")
    module, _, function = name.partition(":")
    try:
        _require_installed(module)
        found = getattr(importlib.import_module(module), function)
    except UsageError as error:
        raise UsageError(f"--sign {name}: {error}") from error
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--sign {name}: expected module:function ({error}).") from error
    if not callable(found):
        raise UsageError(f"--sign {name} is no function.")
    return cast(Sign, found)


def _require_installed(module: str) -> None:
    """Raise UsageError unless a module and the packages around it are installed ones."""
    parts = module.split(".")
    for n in range(1, len(parts) + 1):
        # This imports the packages around it, which have been judged.
        spec = importlib.util.find_spec(".".join(parts[:n]))
        if spec is None:
            raise UsageError(f"there is no module {'.'.join(parts[:n])}; install its package.")
        is_namespace = spec.origin is None and n < len(parts)
        if not is_namespace and not _is_installed(spec):
            raise UsageError(
                f"{module} is {spec.origin or 'a folder without code'}, which is no installed "
                "package; install it into this environment (`pip install`)."
            )


def _is_installed(spec: importlib.machinery.ModuleSpec) -> bool:
    if not spec.origin or not spec.has_location:
        return False
    origin = Path(spec.origin).resolve()
    return any(origin.is_relative_to(folder) for folder in _find_folders())


def _find_folders() -> list[Path]:
    """Return where installed packages lie: site-packages, and projects installed as editable."""
    told = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        told.append(site.getusersitepackages())
    folders = list(dict.fromkeys(told))
    # Not on all of sys.path: the current folder may hold a pretended distribution.
    for distribution in distributions(path=folders):
        with suppress(ValueError, AttributeError, TypeError, KeyError):
            found = json.loads(distribution.read_text("direct_url.json") or "{}")
            if found.get("dir_info", {}).get("editable"):
                folders.append(unquote(urlparse(found["url"]).path))
    return [Path(folder).resolve() for folder in folders]
