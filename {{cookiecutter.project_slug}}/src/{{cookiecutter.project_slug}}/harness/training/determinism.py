"""Randomness of torch as a function of (seed, step), never of history.

Order of the data = permutation(seed, epoch); every step seeds its device with f(seed, step).
So a run resumed at any step draws the same numbers as one that was never interrupted, and no
generator state has to be saved.
"""

import os
import random

import numpy as np
import torch

from ..errors import StudyError
from ..ranks import num_ranks


def mix(*numbers: int) -> int:
    """Hashes integers to a seed in [0, 2^63): neighbouring steps get unrelated random streams.

    The finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", 2014), once for each number.
    """
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


def permutation(num_items: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch: each index in [0, num_items) once. Shape: [num_items], int64."""
    generator = torch.Generator().manual_seed(mix(seed, epoch, 1))
    return torch.randperm(num_items, generator=generator).numpy()


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch on every device: once, before the model is built."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_step(seed: int, step: int, device: torch.device, *, rank: int = 0) -> None:
    """Seeds the generators that a training step may use, on the CPU and on its device.

    Each rank draws numbers of its own: the same dropout for different rows would be none.

    Not `torch.manual_seed`, which walks every backend and takes 73 us a call instead of 1.
    """
    value = mix(seed, step, rank) if rank else mix(seed, step)
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(value)
    elif device.type == "mps":
        torch.mps.manual_seed(value)


def choose_device(name: str) -> torch.device:
    """The device called `auto`, `cpu`, `cuda` (or `cuda:1`) or `mps`; auto takes the fastest.

    Raises:
        StudyError: this machine, or this build of torch, does not have it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        name = "mps" if name == "cpu" and torch.backends.mps.is_available() else name
    kind, index = kind_of(name), name.partition(":")[2]
    available = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if index and not index.isdigit():
        raise StudyError(f"device={name}: must be one of auto, cpu, cuda, mps")
    if int(index or 0) >= available[kind]:
        raise StudyError(f"device={name}: not on this machine; type device=auto or device=cpu")
    return torch.device(name)


def local_card() -> int:
    """The graphics card of this rank.

    Raises:
        StudyError: its host has fewer than ranks.
    """
    number, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if count == 0 or 1 < count <= number:
        raise StudyError(f"device=cuda: {count} graphics cards for more ranks; start fewer")
    return number % count  # where Slurm gives each rank its own, a rank sees that one alone


def kind_of(name: str) -> str:
    """The kind of device of a name: `cpu`, `cuda` or `mps`, present or not.

    Raises:
        StudyError: there is no such kind.
    """
    kind = choose_device(name).type if name == "auto" else name.partition(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise StudyError(f"device={name}: must be one of auto, cpu, cuda, mps")
    return kind


def set_up(device: str, deterministic: bool, num_threads: int, seed: int) -> torch.device:
    """Chooses the device, and sets determinism, threads and seeds: once, before the model is built.

    Each rank of several has its own of a machine's graphics cards.

    Raises:
        StudyError: this machine does not have the device.
    """
    chosen = choose_device(device)
    if num_ranks() > 1 and chosen.type == "cuda":
        chosen = torch.device("cuda", local_card())
    set_determinism(deterministic, num_threads=num_threads)
    seed_everything(seed)
    return chosen


def set_determinism(deterministic: bool, *, num_threads: int) -> None:
    """Same inputs, same bits; or, with `deterministic=False`, the fastest kernels.

    Args:
        deterministic: torch refuses kernels whose result depends on timing, and does float32
            arithmetic in float32. False lets cuDNN choose, allows TF32 and uses every core.
        num_threads: Threads of the CPU. The last bits of a convolution depend on it, so it is
            part of the configuration; not used when `deterministic` is False.
    """
    if deterministic:  # read by cuBLAS when the process first uses the GPU
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
    torch.set_float32_matmul_precision("highest" if deterministic else "high")
    torch.backends.cudnn.allow_tf32 = not deterministic
    torch.set_num_threads(num_threads if deterministic else os.cpu_count() or 1)
