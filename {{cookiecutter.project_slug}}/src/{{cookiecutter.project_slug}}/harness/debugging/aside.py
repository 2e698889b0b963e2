"""What trains and leaves no run behind: its device, its data, and a folder of its own."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..configuration import to_values
from ..configuration.composing import typed_overrides
from ..configuration.opening import describe_preparing
from ..runs.record import has_meaning, name_from

if TYPE_CHECKING:  # torch takes seconds to import
    import torch


def set_up_aside(config: Any) -> "torch.device":
    """Device, determinism and seeds as of a run, on data that are as the configuration says.

    Raises:
        StudyError: the data are not prepared, or this machine does not have the device.
    """
    from ..training.determinism import set_up
    from ..training.prepared import verify_prepared

    parameters = to_values(config)["data"]["prepare"]
    verify_prepared(config.data.folder, parameters, describe_preparing(config, typed_overrides()))
    return set_up(config.device, config.deterministic, config.num_threads, config.seed)


def folder_aside(base: str) -> Path:
    """A folder in `base` for this command line; the same each time."""
    overrides = [item for item in typed_overrides() if has_meaning(item)]
    digest = hashlib.sha256("\n".join(overrides).encode()).hexdigest()
    folder = Path(base, f"{name_from(overrides)}_{digest[:6]}")  # a long name is cut
    folder.mkdir(parents=True, exist_ok=True)
    return folder
