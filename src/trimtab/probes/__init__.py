"""The probes: experiments on a copy, one claim in each file."""
