"""One training in several processes (`torchrun`): each samples and differentiates a share, and all have every episode.

After a rollout the processes exchange their episodes, which are small. So baselines, normalisations, the estimate of Z,
adapted coefficients and logs are computed by all of them from the same numbers, and are those of one process with all
the rows. What costs time is parted: sampling, the passes of the reference, and those of the policy, whose gradients are
summed once per step of the optimizer. Weights are not sharded. There is no `DistributedDataParallel`, which sums while
the backward pass runs, and would have to know the parameters that a pass does not use.

With one process, or without `torch.distributed.init_process_group`, everything here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


@contextmanager
def processes() -> Iterator[None]:
    """Within the block, the process group of which `torchrun` tells in environment variables; without them, none."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if on_gpus := torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpus else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process; 0 is the one that logs and saves."""
    return dist.get_rank() if world_size() > 1 else 0


def from_first(value: T) -> T:
    """What process 0 passed."""
    if world_size() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]


def from_all(value: T) -> list[T]:
    """What each process passed, in their order."""
    if world_size() == 1:
        return [value]
    held: list[Any] = [None] * world_size()
    dist.all_gather_object(held, value)
    return held


def share(n: int) -> slice:
    """Which of n things are this process's; as even as can be, none where there are fewer things than processes."""
    return slice(n * rank() // world_size(), n * (rank() + 1) // world_size())


@torch.no_grad()
def copy_first(tensors: Iterable[torch.Tensor]) -> None:
    """Replace each tensor by process 0's."""
    for tensor in tensors if world_size() > 1 else ():
        dist.broadcast(tensor, src=0)


def add_up(tensors: Sequence[torch.Tensor]) -> None:
    """Replace each tensor by its sum over the processes, in one message for each type of number."""
    if world_size() == 1:
        return
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        same = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.flatten() for tensor in same])
        dist.all_reduce(flat)
        for tensor, total in zip(same, flat.split([tensor.numel() for tensor in same]), strict=True):
            tensor.copy_(total.view_as(tensor))


@torch.no_grad()
def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Sum the gradients over the processes; a parameter that none of them used still has none."""
    if world_size() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    used = set().union(*from_all({i for i, parameter in enumerate(trained) if parameter.grad is not None}))
    for i in sorted(used):
        if trained[i].grad is None:
            trained[i].grad = torch.zeros_like(trained[i])
    add_up([trained[i].grad for i in sorted(used)])  # type: ignore[misc]


def sum_numbers(numbers: dict[str, torch.Tensor]) -> dict[str, float]:
    """The sums of named scalars; a process that has none of them adds nothing."""
    values = torch.stack(list(numbers.values())).tolist() if numbers else []
    totals: dict[str, float] = {}
    for part in from_all(dict(zip(numbers, values, strict=True))):
        for name, value in part.items():
            totals[name] = totals.get(name, 0.0) + value
    return totals
