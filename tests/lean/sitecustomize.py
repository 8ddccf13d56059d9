"""Found by every process that a test starts: leaves out torch's compiler until something is compiled.

`torch.optim` imports `torch._dynamo` for two functions that do nothing where nothing is compiled. That takes two
seconds of each process, as long as torch itself. The processes of the tests get these two functions; whoever asks for
anything else gets the compiler.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"


class Later(MetaPathFinder, Loader):
    """Finds a stand-in for the compiler, and nothing else."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        """Return the stand-in's spec, None for every other name."""
        return ModuleSpec(fullname, self) if fullname == COMPILER else None

    def exec_module(self, module: ModuleType) -> None:
        """Give it what `torch.optim` calls."""
        stand_in: Any = module
        stand_in.disable = lambda function, *args, **kwargs: function
        stand_in.graph_break = lambda *args, **kwargs: None
        stand_in.__getattr__ = self.of_the_compiler

    def of_the_compiler(self, name: str) -> Any:
        """Import the compiler in the stand-in's place and return what it has of this name."""
        if name.startswith("__") and name != "__path__":  # what looks through all modules must not wake it
            raise AttributeError(name)
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            del sys.modules[COMPILER]
        return getattr(import_module(COMPILER), name)


sys.meta_path.insert(0, Later())
