"""An Indexed Job of Kubernetes: a file for `kubectl create`, with a pod for each run of a sweep.

The pods share a volume with `data` and `runs`. A pod that is evicted, or whose time is over, ends
with a checkpoint and exit code 75; the one that takes its place resumes the run.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ..files import write_atomically
from ..runs.record import RESUMABLE
from ..study import PACKAGE
from .resources import KubernetesKeys

PATH = Path("k8s", "job.yaml")
MISTAKES = [1, 2]  # exit codes of what would fail again
USER = 1000  # of the Dockerfile


def write_job(jobs: Sequence[Sequence[str]], keys: KubernetesKeys) -> Path:
    """Writes the Job.

    Args:
        jobs: The overrides of each run.
        keys: What each pod asks for.

    Returns:
        Its path.
    """
    PATH.parent.mkdir(exist_ok=True)
    text = yaml.dump(describe_job(jobs, keys), Dumper=_Dumper, sort_keys=False, width=1000)
    write_atomically(PATH, text.encode())
    return PATH


def describe_job(jobs: Sequence[Sequence[str]], keys: KubernetesKeys) -> dict[str, Any]:
    """The Job as plain values, in the words of `kubectl explain job`."""
    name = PACKAGE.replace("_", "-")
    labels = {"app.kubernetes.io/name": name}
    if keys.queue is not None:
        labels["kueue.x-k8s.io/queue-name"] = keys.queue
    rules: list[dict[str, Any]] = [
        {"action": "Ignore", "onExitCodes": _exit_codes([RESUMABLE])},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
    if keys.tasks_per_node == 1:  # torchrun ends with 1 whatever ended its processes
        rules.append({"action": "FailIndex", "onExitCodes": _exit_codes(MISTAKES)})
    spec = {
        "completionMode": "Indexed",
        "completions": len(jobs),
        "parallelism": min(len(jobs), keys.parallelism),
        "backoffLimitPerIndex": 3,
        "podFailurePolicy": {"rules": rules},
        "template": {"metadata": {"labels": labels}, "spec": _describe_pod(jobs, keys)},
    }
    metadata = {"generateName": f"{name}-", "labels": labels}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _exit_codes(values: Sequence[int]) -> dict[str, Any]:
    return {"containerName": "run", "operator": "In", "values": list(values)}


def _describe_pod(jobs: Sequence[Sequence[str]], keys: KubernetesKeys) -> dict[str, Any]:
    amounts = {
        "cpu": str(keys.cpus_per_task * keys.tasks_per_node),
        "memory": f"{round(keys.mem_gb * 1024)}Mi",
    }
    if keys.gpus_per_node:
        amounts["nvidia.com/gpu"] = str(keys.gpus_per_node)
    mounts = [
        {"name": "study", "mountPath": f"/study/{folder}", "subPath": folder}
        for folder in ("data", "runs")
    ]
    container = {
        "name": "run",
        "image": keys.image,
        "command": ["sh", "-c", _script(jobs, keys)],
        "resources": {"requests": amounts, "limits": amounts},
        "volumeMounts": [*mounts, {"name": "shared-memory", "mountPath": "/dev/shm"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "restartPolicy": "Never",  # the Job replaces a pod, as its failure policy says
        "activeDeadlineSeconds": 60 * keys.timeout_min,
        "terminationGracePeriodSeconds": keys.signal_delay_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
        },
        "containers": [container],
        "volumes": [
            {"name": "study", "persistentVolumeClaim": {"claimName": keys.volume}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},  # of loader processes
        ],
    }


def _script(jobs: Sequence[Sequence[str]], keys: KubernetesKeys) -> str:
    """The command of each pod, chosen by its index."""
    program = ["python", "run.py", "-m"]
    if keys.tasks_per_node > 1:
        number = f"--nproc-per-node={keys.tasks_per_node}"
        patience = f"--shutdown-timeout={keys.signal_delay_s}"
        program = ["torchrun", "--standalone", number, patience, *program[1:]]
    lines = [
        f"{index}) exec {_quote([*program, *job, 'launcher=local'])} ;;"
        for index, job in enumerate(jobs)
    ]
    return "\n".join(["case $JOB_COMPLETION_INDEX in", *lines, "esac\n"])


def _quote(words: Sequence[str]) -> str:
    """For a shell, in a text in which Kubernetes replaces `$(NAME)`."""
    return shlex.join(words).replace("$", "$$")


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Lines as lines, and no abbreviations of what occurs twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent)
