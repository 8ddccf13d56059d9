"""Reference systems: trainings that Trimtab can break on purpose to prove its claims."""
