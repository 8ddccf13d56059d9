"""Configuration: a frozen dataclass is the source of truth; a YAML file may override it, then `key.sub=value`.

Nothing else may: no environment variable, no default at the place of use. A key that the dataclass does not have is an
error that names the nearest one it has, and so is a value of the wrong type.
"""

from trimtab.config.load import load
from trimtab.config.plain import as_dict, to_yaml
from trimtab.config.plugin import load_object

__all__ = ["as_dict", "load", "load_object", "to_yaml"]
