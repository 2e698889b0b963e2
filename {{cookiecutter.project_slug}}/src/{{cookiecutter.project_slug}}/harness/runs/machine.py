"""What the machine is: packages, hardware, energy, and the few variables that can change a number.

Nothing here is kept that could be a secret: of the environment only the names below.
"""

import ctypes
import os
import platform
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

# What limits the instructions of a processor: the last bits of a sum then differ.
INSTRUCTIONS = (
    *("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE"),
    *("MKL_CBWR", "MKL_DEBUG_CPU_TYPE", "MKL_ENABLE_INSTRUCTIONS", "NPY_DISABLE_CPU_FEATURES"),
)
ENVIRONMENT = (
    *INSTRUCTIONS,
    *("CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE", "PYTHONHASHSEED"),
    *("ONEDNN_DEFAULT_FPMATH_MODE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "VECLIB_MAXIMUM_THREADS"),
    *("MKL_DYNAMIC", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("OMP_DYNAMIC", "OMP_NUM_THREADS", "OMP_SCHEDULE", "OMP_THREAD_LIMIT"),
)
INSTALLERS = ("pip", "uv", "wheel")  # which no run imports


def describe_packages(root: Path) -> dict[str, dict[str, str]]:
    """Names and versions: `installed` in this environment, `locked` in requirements.lock."""
    installed: dict[str, str] = {}
    for folder in filter(os.path.isdir, sys.path):
        for name in os.listdir(folder):
            if name.endswith(".dist-info"):  # reading their metadata would take twenty times longer
                package, version = name_and_version(name)
                if package not in INSTALLERS:
                    installed.setdefault(package, version)
    return {"installed": dict(sorted(installed.items())), "locked": locked_versions(root)}


def name_and_version(folder: str) -> tuple[str, str]:
    """Of a package, from the name of the folder with its metadata; the name as in the lock."""
    name, _, version = folder.removesuffix(".dist-info").partition("-")
    return name.replace("_", "-").lower(), version


def locked_versions(root: Path) -> dict[str, str]:
    """The version of each package in requirements.lock."""
    lock = (root / "requirements.lock").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock, re.M))


def describe_environment() -> dict[str, str]:
    """The few variables that can change a number."""
    return {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}


def describe_hardware() -> dict[str, Any]:
    """The machine: host, system, processor, cores, threads and graphics cards."""
    import torch  # pylint: disable=import-outside-toplevel  # a record is read without it

    cards = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": cards,
        "driver": _driver(),
        "cuda": torch.version.cuda,
    }


def _processor() -> str:
    """The model of the processor; only Linux has it in a file."""
    with suppress(OSError, IndexError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return str(re.findall(r"model name\s*:\s*(.*)", text)[0])
    return platform.processor() or platform.machine()


def _driver() -> str | None:
    """The version of NVIDIA's driver, if there is one."""
    with suppress(OSError, IndexError):
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
        return str(re.findall(r"Kernel Module\D*([\d.]+)", text)[0])
    return None


def slurm_job() -> str | None:
    """The number of this job of Slurm, as `squeue` has it; in an array, such as 17_3."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def read_energy(device: str) -> float | None:
    """Joules that a graphics card has used since its driver was loaded, if it is measured."""
    if not device.startswith("cuda"):
        return None
    import torch  # pylint: disable=import-outside-toplevel

    with suppress(OSError, AttributeError):
        identity = torch.cuda.get_device_properties(torch.device(device)).uuid
        nvml = ctypes.CDLL("nvml.dll" if os.name == "nt" else "libnvidia-ml.so.1")
        handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
        name = f"GPU-{identity}".encode()
        if (
            nvml.nvmlInit_v2() == 0
            and nvml.nvmlDeviceGetHandleByUUID(name, ctypes.byref(handle)) == 0
            and nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)) == 0
        ):
            return millijoules.value / 1000
    return None
