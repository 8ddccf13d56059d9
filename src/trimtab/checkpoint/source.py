"""Where weights come from: a checkpoint of ours, or a plain file of tensors from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from trimtab.checkpoint.description import DescribedModel, describe_tensors
from trimtab.checkpoint.foreign import read_plain
from trimtab.checkpoint.reading import Contents, plain, read
from trimtab.errors import CheckpointError, nearest


@dataclass(frozen=True, kw_only=True)
class Source:
    """Models with their tensors, checked. `contents` is None for a plain file of tensors."""

    path: Path
    models: Mapping[str, tuple[DescribedModel, Mapping[str, torch.Tensor]]] = field(repr=False)
    config: Mapping[str, Any]
    contents: Contents | None = field(default=None, repr=False)

    def model(self, name: str | None) -> tuple[DescribedModel, Mapping[str, torch.Tensor]]:
        """Return one model and its tensors, by name, or the only one.

        Raises:
            CheckpointError: there is no model of that name, or several and none was named.
        """
        if name is None and len(self.models) == 1:
            return next(iter(self.models.values()))
        if name is None or name not in self.models:
            hint = nearest(name, self.models) if name is not None else " Say which with name=."
            raise CheckpointError(
                f"{self.path}: it holds the models {', '.join(self.models)}"
                + (f", and none called {name!r}" if name is not None else "") + f".{hint}"
            )  # fmt: skip
        return self.models[name]


def open_source(path: Path | str) -> Source:
    """Read a checkpoint folder, or a file with a plain state_dict.

    Raises:
        CheckpointError: it is missing, damaged or not what it seems.
    """
    where = Path(path)
    if where.is_file():
        tensors = read_plain(where)
        return Source(path=where, models={"model": (describe_tensors(tensors), tensors)}, config={})
    contents = read(where)
    models = {name: (model, contents.tensors[name]) for name, model in contents.models.items()}
    return Source(path=where, models=models, config=plain(contents, "config"), contents=contents)
