"""Batches whose position can be stored: a training that is resumed meets exactly the batches that it had not met yet.

    batches = Batches((inputs, targets), batch_size=32, seed=0)
    for step in range(1000):
        x_BF, y_B = next(batches)

The order of an epoch is a function of (seed, epoch) alone, so the position is two numbers, and going to it costs one
permutation whatever lies before it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from trimtab.errors import UserError

_SETTINGS = ("examples", "batch_size", "seed", "shuffle", "drop_last")


class Batches:
    """An endless iterator of batches, epoch after epoch, each epoch in an order of its own.

    Args:
        source: what batches are made of. A tuple of tensors with N rows each, or one tensor: batches are the same with
            B rows. A number N: batches are (B,) tensors of indices. Anything else with a length and `source[index]`,
            such as a Dataset: batches are what `collate` makes of a list of examples.
        batch_size: B; the last batch of an epoch may be smaller.
        seed: of the orders; 0 or more.
        shuffle: a new order for each epoch; False keeps the order of the source.
        drop_last: leave out the last batch of an epoch when it is smaller.
        collate: list of examples -> batch; torch's `default_collate` when None.

    Attributes:
        epoch: the epoch of the next batch, from 0.
        position: the place of the next batch in its epoch, from 0.
        is_data: True; tells `TrainingState` that this is the position in the data.

    A number as source also serves as `batch_sampler` of a DataLoader without workers. Workers fetch ahead of the loop,
    so with them use `loader`, which counts what the loop was given.

    Raises:
        UserError: nothing to draw from, tensors of unequal length, or a batch size below 1.
    """

    is_data = True

    def __init__(
        self,
        source: Any,
        batch_size: int,
        seed: int = 0,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        collate: Callable[[list[Any]], Any] | None = None,
    ):
        try:
            batch_size, seed = operator.index(batch_size), operator.index(seed)
        except TypeError:
            given = f"{batch_size!r} and {seed!r}"
            raise UserError(f"Batches: expected whole numbers batch_size and seed, got {given}") from None
        self.examples = _examples(source)
        self.source, self.batch_size, self.seed = source, batch_size, seed
        self.shuffle, self.drop_last, self.collate = shuffle, drop_last, collate
        if batch_size < 1 or seed < 0:
            raise UserError(f"Batches: expected batch_size >= 1 and seed >= 0, got {batch_size} and {seed}")
        if not len(self):
            raise UserError(
                f"Batches: {self.examples} examples give no batch of {batch_size}"
                + ("; use drop_last=False or a smaller batch" if self.examples else "")
            )
        self.epoch = self.position = 0
        self._order: tuple[int, torch.Tensor] | None = None
        self._moves = 0

    def __len__(self) -> int:
        """Return how many batches an epoch has; the iterator itself never ends."""
        return self.examples // self.batch_size if self.drop_last else -(-self.examples // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        indices_B = self._indices(self.epoch, self.position)
        batch = self._take(indices_B)
        self._advance()
        return batch

    def loader(self, dataset: Any, **options: Any) -> Generator[Any, None, None]:
        """Yield batches of a DataLoader that fetches ahead, from the present position on, without an end.

        The position counts the batches that the loop was given, not those that workers have fetched for later. After
        `load_state_dict` what was fetched ahead is thrown away. Random numbers drawn inside workers are not restored;
        let them depend on the index of the example.

        Args:
            dataset: what the indices of these Batches mean; as long as `examples`.
            options: of the DataLoader, such as `num_workers` and `collate_fn`.

        Raises:
            UserError: a data set of another length.
        """
        if _examples(dataset) != self.examples:
            raise UserError(
                f"Batches.loader: the data set has {_examples(dataset)} examples, these Batches were made for "
                f"{self.examples}; give both the same data"
            )
        while True:
            moves = self._moves
            generator = torch.Generator().manual_seed(self.seed)  # else it would draw from torch's own
            ahead = torch.utils.data.DataLoader(
                dataset, batch_sampler=_Ahead(self), **{"generator": generator, **options}
            )
            for batch in ahead:
                self._advance()
                yield batch
                if moves != self._moves:
                    break

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and the settings that it depends on."""
        return {"epoch": self.epoch, "position": self.position, **{name: getattr(self, name) for name in _SETTINGS}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a stored position.

        Raises:
            UserError: the position is one in other data, or in another order.
        """
        wrong = [
            f"{name} was {state.get(name)!r} and is {getattr(self, name)!r}"
            for name in _SETTINGS
            if state.get(name) != getattr(self, name)
        ]
        if wrong:
            raise UserError(f"Batches: the stored position is one in another order: {'; '.join(wrong)}")
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
        self._moves += 1

    def _advance(self) -> None:
        self.position += 1
        if self.position >= len(self):
            self.epoch, self.position = self.epoch + 1, 0

    def _indices(self, epoch: int, position: int) -> torch.Tensor:
        """Return the (B,) indices of one batch."""
        if self._order is None or self._order[0] != epoch:
            if self.shuffle:
                order = torch.from_numpy(np.random.default_rng((self.seed, epoch)).permutation(self.examples))
            else:
                order = torch.arange(self.examples)
            self._order = (epoch, order)
        first = position * self.batch_size
        return self._order[1][first : first + self.batch_size]

    def _take(self, indices_B: torch.Tensor) -> Any:
        source = self.source
        if isinstance(source, int):
            return indices_B.clone()
        if isinstance(source, torch.Tensor):
            return source[indices_B.to(source.device)]
        if isinstance(source, tuple):
            return tuple(tensor[indices_B.to(tensor.device)] for tensor in source)
        examples = [source[index] for index in indices_B.tolist()]
        return (self.collate or torch.utils.data.default_collate)(examples)


class NumberedBatches:
    """An endless iterator over batches that a function makes from their number: `make(0)`, `make(1)`, ...

    For data that are drawn and not stored. `make` must give the same batch for the same number each time.

    Attributes:
        position: the number of the next batch.
        is_data: True; tells `TrainingState` that this is the position in the data.
    """

    is_data = True

    def __init__(self, make: Callable[[int], Any]):
        self.make = make
        self.position = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        batch = self.make(self.position)
        self.position += 1
        return batch

    def state_dict(self) -> dict[str, int]:
        """Return the position."""
        return {"position": self.position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a stored position."""
        self.position = int(state["position"])


class _Ahead:
    """Lists of indices from the present position of some Batches on; walking through it does not move them."""

    def __init__(self, batches: Batches):
        self._batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._batches
        epoch, position = batches.epoch, batches.position
        while True:
            yield batches._indices(epoch, position).tolist()
            position += 1
            if position >= len(batches):
                epoch, position = epoch + 1, 0


def _examples(source: Any) -> int:
    """Return how many examples a source has."""
    if isinstance(source, int):
        return source
    if isinstance(source, tuple):
        odd = [one for one in source if not isinstance(one, torch.Tensor) or not one.dim()]
        if odd:
            raise UserError(
                f"Batches: expected a tuple of tensors with one row for each example, and a {type(odd[0]).__name__} is "
                "among them; make it a tensor, or give a Dataset"
            )
        lengths = {len(tensor) for tensor in source}
        if len(lengths) != 1:
            raise UserError(
                f"Batches: expected a tuple of tensors with the same number of rows, got {len(source)} parts of "
                f"lengths {sorted(lengths)}"
            )
        return int(lengths.pop())
    try:
        return len(source)
    except TypeError:
        raise UserError(
            f"Batches: a {type(source).__name__} has no length, so its order cannot be stored; give a Dataset with a "
            "length, tensors, or the number of examples"
        ) from None
