"""Trimtab watches PyTorch trainings."""

__version__ = "0.1.0"
