"""`launcher=kubernetes`: a Job that Kubernetes takes, whose pods do the runs of the sweep.

There is no Kubernetes here: the Job is held against its published schemas, and its commands run.
"""

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from conftest import Study

SWEEP = ("-m", "launcher=kubernetes", "model=linear", "training.num_epochs=1", "seed=0,1")
VERSIONS = ("1.29", kubernetes_validate.latest_version())  # the first with all of what is used


def write(study: Study, *words: str) -> Any:
    """The Job of a sweep, as `kubectl` would read it."""
    said = study.call("python", "run.py", *SWEEP, *words)
    assert "type: kubectl create -f k8s/job.yaml" in said
    return yaml.safe_load((study.folder / "k8s" / "job.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_job_is_as_the_schemas_of_kubernetes_say(mine: Study, version: str) -> None:
    keys = ("gpus_per_node=2", "tasks_per_node=2", "cpus_per_task=3", "mem_gb=1.5", "queue=team")
    job = write(mine, *(f"hydra.launcher.{key}" for key in keys))
    kubernetes_validate.validate(job, version, strict=True)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    limits = {"cpu": "6", "memory": "1536Mi", "nvidia.com/gpu": "2"}
    assert container["resources"] == {"limits": limits, "requests": limits}
    words = "torchrun --standalone --nproc-per-node=2 --shutdown-timeout=90 run.py -m"
    assert words in container["command"][-1]
    job["spec"]["completion"] = 2  # no such key: the schemas notice
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, version, strict=True)


def test_each_pod_does_the_run_of_its_index(mine: Study) -> None:
    job = write(mine)
    assert job["spec"]["completions"] == 2 and not list((mine.folder / "runs").glob("*/"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    mine.call(*container["command"], env={"JOB_COMPLETION_INDEX": "1"})
    (path,) = (mine.folder / "runs").glob("*/record.json")
    record = json.loads(path.read_bytes())
    assert record["status"] == "finished" and record["seed"] == 1
    said = mine.call(*container["command"], env={"JOB_COMPLETION_INDEX": "1"})
    assert "already finished" in said


def test_a_pod_is_the_user_of_the_image_and_has_its_volumes(mine: Study) -> None:
    pod = write(mine)["spec"]["template"]["spec"]
    dockerfile = (mine.folder / "Dockerfile").read_text(encoding="utf-8")
    assert f"USER {pod['securityContext']['runAsUser']}:" in dockerfile
    mounts = [item["mountPath"] for item in pod["containers"][0]["volumeMounts"]]
    folder = next(line.split()[1] for line in dockerfile.splitlines() if line[:7] == "WORKDIR")
    assert mounts == [f"{folder}/data", f"{folder}/runs", "/dev/shm"]


def test_its_keys_are_those_of_slurm(study: Study) -> None:
    keys = {}
    for name in ("slurm", "kubernetes"):
        path = study.folder / "conf" / "launcher" / f"{name}.yaml"
        keys[name] = set(yaml.safe_load(path.read_text(encoding="utf-8"))["hydra"]["launcher"])
    assert keys["kubernetes"] - keys["slurm"] == {"image", "volume", "queue", "parallelism"}


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("hydra.launcher.mem_gb=-1", "hydra.launcher.mem_gb=-1.0: must be above 0.001"),
        ("hydra.launcher.nodes=2", "hydra.launcher.nodes: there is no such key"),
        ("hydra.launcher.memory=2", "hydra.launcher.memory: there is no such key"),
        ("model.lr=nan", "model.lr=nan: must be above 0, and a float32; nothing was submitted"),
    ],
)
def test_a_mistake_writes_nothing(mine: Study, word: str, reason: str) -> None:
    assert reason in mine.call("python", "run.py", *SWEEP, word, code=1)
    assert not Path(mine.folder, "k8s").exists()
