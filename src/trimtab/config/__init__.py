"""Configuration: a frozen dataclass is the source of truth; a YAML file may override it, then `key.sub=value`.

Nothing else may: no environment variable, no default at the place of use. What a project says about every run in it
stands in its pyproject.toml (`project.py`). A key that the dataclass does not have is an error that names the nearest
one it has, and so is a value of the wrong type.
"""

from trimtab.config.load import load, of_dict
from trimtab.config.plain import as_dict, to_yaml
from trimtab.config.plugin import load_object
from trimtab.config.project import LeftOut, Project, find_project, project_of

__all__ = ["LeftOut", "Project", "as_dict", "find_project", "load", "load_object", "of_dict", "project_of", "to_yaml"]
