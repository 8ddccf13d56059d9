"""Trimtab inside other tools, one file each; importing this package imports none of them."""
