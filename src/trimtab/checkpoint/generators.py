"""The random number generators of every library in use, and single ones that are handed over."""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np
import torch

from trimtab.errors import UserError

Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random
"""One generator that somebody made for a purpose of its own."""


def everywhere() -> dict[str, Any]:
    """Return the state of the global generators of torch (CPU, every CUDA device in use, MPS), numpy and Python."""
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(legacy=False),
        "python": _of_python(random.getstate()),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def check_everywhere(states: dict[str, Any]) -> str | None:
    """Return what of the generators cannot be put back here, or None."""
    if "cuda" in states:
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if len(states["cuda"]) != there:
            return f"the generators of {len(states['cuda'])} CUDA devices were kept, and there are {there} here"
    if "mps" in states and not torch.backends.mps.is_available():
        return "the generator of an MPS device was kept, and there is none here"
    return None


def put_back_everywhere(states: dict[str, Any]) -> None:
    """Put the state of every global generator back, as far as its device exists."""
    torch.set_rng_state(states["torch"].cpu())
    np.random.set_state(states["numpy"])
    random.setstate(_to_python(states["python"]))
    if "cuda" in states and torch.cuda.is_available():
        for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state.cpu(), device)
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"].cpu())


def rehearse(states: Any) -> None:
    """Try whether states can be put back, and leave every generator where it is.

    Raises:
        UserError: one refuses its state, or this is no such state.
    """
    before = everywhere()
    try:
        put_back_everywhere(states)
    except (TypeError, ValueError, RuntimeError, KeyError, AttributeError, IndexError, OverflowError) as error:
        raise UserError(f"the random numbers cannot be put back: {type(error).__name__}: {error}") from None
    finally:
        put_back_everywhere(before)


def of_one(generator: Generator) -> Any:
    """Return the state of one generator as a nest that can be stored."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return _of_python(generator.getstate())


def put_back_one(generator: Generator, state: Any) -> None:
    """Put the state of one generator back.

    Raises:
        UserError: it is the state of another kind of generator.
    """
    try:
        if isinstance(generator, torch.Generator):
            generator.set_state(state.cpu())
        elif isinstance(generator, np.random.Generator):
            generator.bit_generator.state = state
        elif isinstance(generator, np.random.RandomState):
            generator.set_state(state)
        else:
            generator.setstate(_to_python(state))
    except (TypeError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise UserError(f"this is not the state of a {type(generator).__name__}: {error}") from None


def seeds() -> dict[str, int]:
    """Return the seed that torch was last given; numpy and Python do not tell theirs."""
    return {"torch": torch.initial_seed()}


def _of_python(state: tuple[Any, ...]) -> Any:
    version, numbers, gauss = state
    if isinstance(numbers, tuple) and sys.maxsize > 2**32:
        return {"version": version, "numbers": np.array(numbers, dtype=np.int64), "gauss": gauss}
    return {"version": version, "numbers": numbers, "gauss": gauss}


def _to_python(state: Any) -> tuple[Any, ...]:
    numbers = state["numbers"]
    return state["version"], tuple(int(number) for number in numbers), state["gauss"]
