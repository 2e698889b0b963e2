"""Several processes that train one model: `torchrun --standalone --nproc-per-node=2 run.py ...`.

Each process is a rank. Every rank computes its part of each batch, DistributedDataParallel sums the
gradients, so all ranks hold the same weights; rank 0 alone writes. The batch size is that of all
ranks together: the numbers are those of one process, but for the last bits of the sums.
"""

import atexit
import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from ..errors import StudyError
from ..ranks import Told, num_ranks, rank
from .determinism import kind_of, local_card

T = TypeVar("T")
Batch = dict[str, Tensor]
PATIENCE = timedelta(minutes=30)  # with a host that is silent; of a process, connections close
LAST_WORDS = 2  # seconds to wait for the error of a rank that was lost
_state: dict[str, Any] = {}  # the store, and the group of CPU processes for what is no gradient


class LostRank(StudyError):
    """Another rank ended, so this one cannot go on."""


def join(device: str) -> None:
    """Connects this process with the other ranks, once; does nothing where there are none.

    Args:
        device: As configured: `auto`, `cpu` or `cuda`.

    Raises:
        StudyError: the ranks cannot be told apart, or have no device each.
    """
    if num_ranks() == 1 or dist.is_initialized():
        return
    if missing := [key for key in ("RANK", "LOCAL_RANK", "MASTER_ADDR") if key not in os.environ]:
        raise StudyError(
            f"WORLD_SIZE={num_ranks()}, but {missing[0]} is not set; type: torchrun ..."
        )
    if rank():
        logging.disable(logging.INFO)  # rank 0 tells how it goes
    kind = kind_of(device)
    if kind == "mps" or ":" in device:
        raise StudyError(f"device={device}: with several ranks, must be auto, cpu or cuda")
    store, *_ = next(rendezvous("env://"))
    backend = "nccl" if kind == "cuda" else "gloo"
    arguments = {"timeout": PATIENCE} if backend == "gloo" else {}
    if backend == "nccl":
        torch.cuda.set_device(local_card())
    dist.init_process_group(
        backend, store=store, rank=rank(), world_size=num_ranks(), **arguments  # type: ignore
    )
    _state["store"] = store
    _state["group"] = dist.new_group(backend="gloo", timeout=PATIENCE)
    atexit.register(_leave)


def _leave() -> None:
    with contextlib.suppress(Exception):  # of a peer that is gone
        dist.destroy_process_group()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """In here, what a rank dies of is told to the others, and the loss of a rank is one line.

    Raises:
        LostRank: another rank ended; with its error, if it could tell one.
    """
    if num_ranks() == 1:
        yield
        return
    try:
        yield
    except (LostRank, Told):
        raise
    except RuntimeError as error:
        if not _is_of_connection(error):
            _tell(error)
            raise
        raise LostRank(f"stopped, because {_last_words()}") from error
    except BaseException as error:
        _tell(error)
        raise


def _is_of_connection(error: BaseException) -> bool:
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def _tell(error: BaseException) -> None:
    text = " ".join(f"rank {rank()} ended with {type(error).__name__}: {error}".split())
    with contextlib.suppress(Exception):  # the store is gone with the rank that held it
        _state["store"].compare_set("error", "", text)  # the first is the cause of the others


def _last_words() -> str:
    """What a rank that ended has told; one that was killed tells nothing."""
    deadline = time.monotonic() + LAST_WORDS
    with contextlib.suppress(Exception):
        while not _state["store"].check(["error"]) and time.monotonic() < deadline:
            time.sleep(0.05)
        if _state["store"].check(["error"]):
            return str(_state["store"].get("error").decode())
    return "another rank was killed, or its host was lost"


def share(make: Callable[[], T]) -> T:
    """What rank 0 makes, on every rank: its result, or its error.

    Raises:
        Told: on other ranks, whatever error it was.
    """
    if num_ranks() == 1:
        return make()
    sent: list[Any] = [None, None]
    try:
        if rank() == 0:
            sent[0] = make()
    except BaseException as error:
        sent[1] = f"{type(error).__name__}: {error}"
        raise
    finally:
        with together():
            dist.broadcast_object_list(sent, src=0, group=_state["group"])
    if sent[1] is not None:
        raise Told(sent[1])
    result: T = sent[0]
    return result


def gather(value: Any) -> list[Any]:
    """The value of each rank, in their order, on rank 0; an empty list elsewhere."""
    if num_ranks() == 1:
        return [value]
    found: list[Any] | None = [None] * num_ranks() if rank() == 0 else None
    dist.gather_object(value, found, dst=0, group=_state["group"])
    return found or []


def refuse_different(what: str, value: object) -> None:
    """Refuses ranks that were given different things.

    Raises:
        StudyError: names what differs.
    """
    values = gather(value)
    if share(lambda: any(other != values[0] for other in values)):
        raise StudyError(f"{what}: not the same on all ranks")


def agree(value: int) -> int:
    """The largest value of all ranks, so that all decide alike."""
    tensor = torch.tensor(value)
    dist.all_reduce(tensor, dist.ReduceOp.MAX, group=_state["group"])
    return int(tensor)


def part_of(rows: np.ndarray) -> np.ndarray:
    """The rows of a batch that this rank computes; all, if there are fewer than ranks."""
    if len(rows) < num_ranks():
        return rows
    return np.array_split(rows, num_ranks())[rank()]


def scale(weight: int, device: torch.device) -> Tensor:
    """What the loss of a part is multiplied with, so that the mean over the ranks is that over all.

    Args:
        weight: Over how many targets or rows this rank's part of a batch has its mean.
        device: Of the loss.

    Returns:
        A scalar on the device.
    """
    total = torch.tensor(float(weight), device=device)
    dist.all_reduce(total)
    return weight * num_ranks() / total.clamp(min=1)


def mean(value: Tensor) -> Tensor:
    """The mean of a scalar over the ranks."""
    dist.all_reduce(value)
    return value / num_ranks()


def wrap(forward: nn.Module, device: torch.device) -> nn.Module:
    """A model whose gradients are summed over all ranks in `backward`.

    Raises:
        StudyError: it cannot be right there.
    """
    if device.type == "cpu" and any(isinstance(item, _BatchNorm) for item in forward.modules()):
        hint = "train in one process, or use GroupNorm or LayerNorm"
        raise StudyError(f"model.network: batch norm over several ranks needs GPUs; {hint}")
    # buckets that are not built anew after the first step: sums are in the same order on resuming
    devices = [device.index or 0] if device.type == "cuda" else None
    return DistributedDataParallel(forward, device_ids=devices, find_unused_parameters=True)


def synchronize_statistics(model: nn.Module, num_pieces: int) -> nn.Module:
    """A model whose batch norms count the rows of all ranks, where these have GPUs.

    Args:
        model: Of one process.
        num_pieces: Into how many pieces a batch is split.

    Raises:
        StudyError: the ranks could have different numbers of pieces, and would wait for ever.
    """
    has_norm = any(isinstance(item, _BatchNorm) for item in model.modules())
    if not has_norm or not torch.cuda.is_available():
        return model
    if num_pieces > 1:
        hint = "not with a batch norm over several ranks"
        raise StudyError(f"training.num_accumulation_steps={num_pieces}: {hint}")
    convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
    return convert(model)


def require_same_weights(model: nn.Module) -> None:
    """Compares the weights of all ranks by the sums of their bytes.

    Raises:
        StudyError: they differ.
    """
    sums = [
        int(item.detach().reshape(-1).view(torch.uint8).sum(dtype=torch.int64))
        for item in model.parameters()
    ]
    refuse_different("the weights after a step (see train_step in docs/past-one-machine.md)", sums)


def share_buffers(model: nn.Module) -> None:
    """Gives each rank the buffers of rank 0, such as the statistics of a norm."""
    for item in model.buffers():
        dist.broadcast(item, src=0)


def rows_to_evaluate(order: np.ndarray, batch_size: int) -> tuple[np.ndarray, int]:
    """The rows of each batch that this rank evaluates: every so many, as there are ranks.

    Returns:
        Them, one batch after the other, and how many batches the rank with the most has.
    """
    starts = range(0, len(order), batch_size)
    chunks = [order[start : start + batch_size] for start in starts]
    own = np.concatenate([order[:0], *chunks[rank() :: num_ranks()]])
    return own, math.ceil(len(chunks) / num_ranks())


def from_all_ranks(
    answers: Iterator[tuple[Batch, Batch]], num_rounds: int
) -> Iterator[tuple[Batch, Batch]]:
    """On rank 0, the outputs and batches of all ranks, in the order of one process, on the CPU.

    Args:
        answers: Those of this rank.
        num_rounds: How many the rank with the most has.
    """
    for _ in range(num_rounds):
        pair = next(answers, ())
        for found in gather([{key: item.cpu() for key, item in each.items()} for each in pair]):
            if found:
                yield found[0], found[1]
