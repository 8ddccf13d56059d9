"""How this system is known to break."""

FAULTS = ()
