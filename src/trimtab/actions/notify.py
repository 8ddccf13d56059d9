"""Tell somebody."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from trimtab.actions._action import Action
from trimtab.live import Live
from trimtab.records import Finding, Outcome

log = logging.getLogger("trimtab")


@dataclass(frozen=True, kw_only=True)
class Notify(Action):
    """Tell somebody about a finding: a line in the log, or a command of your own.

    `command` is started without waiting for it, with the finding as JSON in the environment variable
    TRIMTAB_FINDING and as its last argument the summary. A command that cannot be started gives a failed outcome.
    """

    name: ClassVar[str] = "notify"
    changes: ClassVar[Literal["nothing", "schedule", "weights"]] = "nothing"
    at_most: int | None = None
    command: Sequence[str] = ()

    def apply(self, live: Live | None, finding: Finding) -> Outcome:
        """Log the finding, or start the command."""
        if not self.command:
            log.warning("notify: %s: %s", finding.code, finding.summary)
            return self.outcome(finding, "done", "logged")
        facts = {
            "code": finding.code,
            "subject": finding.subject,
            "severity": str(finding.severity),
            "stream": finding.stream,
            "step": finding.step,
            "summary": finding.summary,
        }
        try:
            child = subprocess.Popen(
                [*self.command, finding.summary],
                env={**os.environ, "TRIMTAB_FINDING": json.dumps(facts)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            return self.outcome(finding, "failed", f"could not start {self.command[0]!r}: {error}")
        threading.Thread(target=child.wait, name="trimtab-notify", daemon=True).start()  # so that no zombie is left
        return self.outcome(finding, "done", f"started {self.command[0]!r}")
