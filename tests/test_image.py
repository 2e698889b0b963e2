"""The image, built and run for real by podman, on a base that is made here: no registry is asked.

Nothing is left behind: images and containers stand in a temporary folder.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Study, needs

pytestmark = [pytest.mark.slow, needs("mmdebstrap", "podman", "runc", root=True)]
PACKAGES = "ca-certificates,python-is-python3,python3,python3-pip"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
NOBODY = "65534:65534"
# Plain files, no systemd, no cgroups and no limits to raise: this works in a container too
SETTINGS = {
    "containers.conf": """
        [containers]
        default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
        netns = "host"
        [engine]
        cgroup_manager = "cgroupfs"
        events_logger = "file"
        runtime = "runc"
        tmp_dir = "{folder}/tmp"
    """,
    "storage.conf": """
        [storage]
        driver = "overlay"
        graphroot = "{folder}/images"
        runroot = "{folder}/run"
    """,
}
RUN = ("model=linear", "model.lr=1.0e-2", "test=true", "device=cpu", "run_dir=runs/compared")


class Podman:
    """Podman with images of its own."""

    def __init__(self, folder: Path) -> None:
        self.env = {
            "BUILDAH_ISOLATION": "chroot",
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "TMPDIR": str(folder),
        }
        for name, text in SETTINGS.items():
            (folder / name).write_text(text.format(folder=folder), encoding="utf-8")

    def __call__(self, *words: str | Path) -> str:
        """What podman prints."""
        command, env = ["podman", *words], os.environ | self.env
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def inspect(self, image: str) -> dict[str, Any]:
        """What the image says of itself."""
        (found,) = json.loads(self("image", "inspect", image))
        return dict(found)

    def make(self, study: Study, target: str, options: str, arguments: str = "") -> str:
        """What `make TARGET` prints, as one types it."""
        words = (f"OPTIONS={options}", f"ARGS={arguments}", "DOCKER=podman")
        return study.call("make", target, *words, env=self.env)


@pytest.fixture(name="podman", scope="module")
def _podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """With a Debian that has Python, pip and this machine's certificates, as `localhost/base`."""
    folder = tmp_path_factory.mktemp("podman")
    tar = folder / "base.tar"
    hooks = [
        'rm --force "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
        f'cp {os.environ.get("SSL_CERT_FILE", CERTIFICATES)} "$1"{CERTIFICATES}',
    ]
    options = [f"--customize-hook={hook}" for hook in hooks]
    words = [
        "mmdebstrap",
        "--variant=minbase",
        "--dpkgopt=force-unsafe-io",
        f"--include={PACKAGES}",
        *options,
    ]
    done = subprocess.run([*words, "bookworm", tar], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    podman = Podman(folder)
    variables = [f"--change=ENV={name}={CERTIFICATES}" for name in ("SSL_CERT_FILE", "PIP_CERT")]
    podman("import", "--quiet", *variables, tar, "localhost/base")
    tar.unlink()
    yield podman
    shutil.rmtree(folder)  # `podman rmi` takes ten times as long


def build_options() -> str:
    """The base; and a mirror, or wheels of a folder, where this machine has them."""
    options = ["--build-arg BASE=localhost/base"]
    environment = {"UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", ""), **os.environ}
    for name in ("UV_TORCH_BACKEND", "UV_FIND_LINKS", "UV_DEFAULT_INDEX", "PIP_INDEX_URL"):
        if value := environment.get(name):
            options.append(f"--build-arg {name}={value}")
            if Path(value).is_dir():
                options.append(f"-v {value}:{value}:ro")
    return " ".join(options)


@dataclass
class Built:
    """Two commits of a study that differ in a line of source, and the image of each."""

    podman: Podman
    study: Study
    first: dict[str, Any]
    second: dict[str, Any]
    said: str  # by the second build


@pytest.fixture(name="built", scope="module")
def _built(podman: Podman, small: Study, tmp_path_factory: pytest.TempPathFactory) -> Built:
    study = small.copy(tmp_path_factory.mktemp("built") / "my_study")
    podman.make(study, "image", build_options())
    first = podman.inspect("my_study")
    with open(study.folder / "src/my_study/metrics.py", "a", encoding="utf-8") as source:
        source.write("# another line\n")
    study.commit()
    said = podman.make(study, "image", build_options())
    return Built(podman, study, first, podman.inspect("my_study"), said)


def test_after_a_change_of_source_no_dependency_is_installed_again(built: Built) -> None:
    first, second = (image["RootFS"]["Layers"] for image in (built.first, built.second))
    kept = [old == new for old, new in zip(first, second, strict=True)]
    assert kept.count(False) == 2, kept  # src, and its installation
    (install,) = re.findall(r"STEP \d+/\d+: RUN pip.*\n--> (.*)", built.said)
    assert install.startswith("Using cache")
    size = built.second["Size"] - built.podman.inspect("localhost/base")["Size"]
    print(f"the image: {size / 1e6:.0f} MB on top of its base")


def test_two_builds_of_a_commit_are_one_image(built: Built, tmp_path: Path) -> None:
    """Of all layers: the second build is one without any cache, in another clone."""
    clone = built.study.clone(tmp_path / "clone")
    built.podman.make(clone, "image", f"{build_options()} --no-cache")
    assert built.podman.inspect("my_study")["Id"] == built.second["Id"]


def test_a_run_in_it_by_anybody_and_without_network_computes_the_same_numbers(
    built: Built,
) -> None:
    study, runs = built.study, built.study.folder / "runs"
    runs.mkdir()
    os.chown(runs, *map(int, NOBODY.split(":")))
    options = f"--user {NOBODY} --network none"
    built.podman.make(study, "image-run", options, " ".join(RUN))
    inside = runs / "compared"
    assert f"{inside.stat().st_uid}:{inside.stat().st_gid}" == NOBODY
    record = json.loads((inside / "record.json").read_text("utf-8"))
    assert record["status"] == "finished" and record["metrics"]["test"]
    labels = built.second["Labels"]
    commit = study.call("git", "rev-parse", "HEAD").strip()
    assert record["git"] == {"commit": commit, "clean": True}
    assert labels["org.opencontainers.image.revision"] == commit
    assert labels["requirements.lock.sha256"] == record["lock"]
    outside = study.copy(study.folder.parent / "outside")
    shutil.rmtree(outside.folder / "runs")
    outside.call("python", "run.py", *RUN)
    for name in ("metrics.json", "history.csv", "best.pt"):
        found = (outside.folder / "runs" / "compared" / name).read_bytes()
        assert found == (inside / name).read_bytes(), name


def test_the_network_is_cut_off_in_that_run(built: Built) -> None:
    words = ("run", "--rm", "--network=none", "--entrypoint=cat", "my_study", "/proc/net/route")
    assert len(built.podman(*words).splitlines()) == 1  # the heading


def test_it_holds_what_training_needs_and_no_other_package(built: Built) -> None:
    words = ("run", "--rm", "--network=none", "--entrypoint=uv", "my_study", "pip", "list")
    listed = json.loads(built.podman(*words, "--system", "--format=json"))
    found = {package["name"] for package in listed}
    text = (built.study.folder / "pyproject.toml").read_text("utf-8")
    dependencies = text.partition("dependencies = [")[2].partition("]")[0]
    assert found >= set(re.findall(r'"([\w-]+)', dependencies)) | {"my-study"}
    groups = text.partition("[dependency-groups]\n")[2].partition("\n[")[0]
    others = set(re.findall(r'"([\w-]+)[>=<"]', groups)) - {"uv"}  # which installs the rest
    assert len(others) > 20 and not found & others
