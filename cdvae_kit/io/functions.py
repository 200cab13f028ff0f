"""Functions that a user names as `module:function`: oracles, metrics and the like."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any


def load_function(name: str, what: str) -> Any:
    """What `module:function` names; modules of the working folder are found, too.

    Args:
        name: of the module and, behind a colon, of what is in it.
        what: it is, for the error: "an oracle" for one.

    >>> load_function("math:prod", "an oracle").__name__
    'prod'
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ValueError(f"expected {what} as module:function, got {name!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # a module that is there, and lacks another one
        if error.name is None or module_name.split(".")[0] != error.name.split(".")[0]:
            raise
        raise ValueError(f"there is no module {module_name!r} here or among the installed ones") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{module_name} has no {attribute!r}")
        found = getattr(found, part)
    return found
