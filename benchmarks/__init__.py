"""Benchmarks of Trimtab: each script remakes one stored result."""
