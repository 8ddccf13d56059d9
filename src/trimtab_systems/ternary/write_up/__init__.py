"""The ternary system as its write-up has it: architecture, losses, controllers, and the sweep that went wrong."""
