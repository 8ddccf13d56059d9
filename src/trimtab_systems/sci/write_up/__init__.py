"""The write-up's network: structure in slots, content in tokens, bound to each other by causal attention."""
