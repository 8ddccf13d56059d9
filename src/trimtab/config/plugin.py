"""Objects of other packages, named in a configuration as "package.module:Name"."""

from __future__ import annotations

import importlib
from typing import Any

from trimtab.errors import ConfigError, nearest


def load_object(name: str) -> Any:
    """Return the object that "package.module:Name" names; a class is called without arguments.

    Raises:
        ConfigError: the name has another form, or there is no such module or object, or the class needs arguments.
    """
    module_name, colon, path = name.partition(":")
    if not (colon and all(part.isidentifier() for part in [*module_name.split("."), *path.split(".")])):
        raise ConfigError(f"{name!r}: expected the form 'package.module:Name', such as 'my_package.detectors:Mine'")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ConfigError(
                f"{name!r}: there is no module {error.name!r}; "
                "install the package that has it, or put its folder on PYTHONPATH"
            ) from None
        raise ConfigError(f"{name!r}: importing {module_name} failed: {error}") from error
    except Exception as error:
        raise ConfigError(f"{name!r}: importing {module_name} failed: {type(error).__name__}: {error}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            public = [known for known in dir(found) if not known.startswith("_")]
            raise ConfigError(f"{name!r}: {module_name} has no {part!r}.{nearest(part, public)}")
        found = getattr(found, part)
    if not isinstance(found, type):
        return found
    try:
        return found()
    except Exception as error:
        raise ConfigError(
            f"{name!r}: making one without arguments failed: {type(error).__name__}: {error}; "
            "give its fields defaults, or name an object that is made already"
        ) from error
