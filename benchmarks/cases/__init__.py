"""The table of cases: trainings that are healthy, and trainings with one known fault."""
