"""One folder on disk for each training, append and read: all that the loop, the command line and the report share.

Importing this package loads the standard library alone; numpy, pydantic and yaml are loaded by what needs them. The
format is described in docs/run-folder.md.
"""

from trimtab.run.codec import FORMAT, safe_json
from trimtab.run.reader import Run, find_run, list_runs
from trimtab.run.writer import RunWriter

__all__ = ["FORMAT", "Run", "RunWriter", "find_run", "list_runs", "safe_json"]
