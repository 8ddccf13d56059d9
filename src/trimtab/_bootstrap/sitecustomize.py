"""Python imports this by itself in every process that `trimtab watch` starts: it makes Trimtab wait for torch.

It takes itself off the path again and gives way to a `sitecustomize` of the machine's own, if there is one.
"""

import os
import sys


def _begin() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    try:
        from trimtab.watch import arm

        arm()
    except Exception as error:  # noqa: BLE001 - the watched program must run whatever happens to us
        sys.stderr.write(f"trimtab: cannot watch this process ({type(error).__name__}: {error})\n")
    ours = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # noqa: F401 - the machine's own one, hidden by ours
    except ImportError:
        if ours is not None:
            sys.modules["sitecustomize"] = ours


_begin()
