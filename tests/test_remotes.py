"""Data that DVC tracks: the commands of docs/data.md as typed, on a real S3 and SSH server."""

import contextlib
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from conftest import TEMPLATE, Study, needs

pytestmark = pytest.mark.slow
PAGE = TEMPLATE / "{{cookiecutter.project_slug}}" / "docs" / "data.md"
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
ADD, IMPORT, OLD, FOLDER, S3_BLOCK, SSH_BLOCK = BLOCKS
SCANS = Path("data/raw/scans/digits.csv")


def type_in(study: Study, block: str, code: int = 0, **values: str | Path) -> str:
    """Types a block of the page, with values for the words in capitals that it leaves open."""
    for name, value in values.items():
        assert re.search(rf"\b{name}\b", block), name
        block = re.sub(rf"\b{name}\b", str(value), block)
    return study.call("sh", "-ec", block, code=code)


def put_scans(study: Study, num_rows: int) -> None:
    """A folder of raw data with the first rows of the table of digits, and the header."""
    lines = (study.folder / "tests/fixtures/digits.csv").read_text("utf-8").splitlines(True)
    assert len(lines) > num_rows
    (study.folder / SCANS).parent.mkdir(exist_ok=True)
    (study.folder / SCANS).unlink(missing_ok=True)
    (study.folder / SCANS).write_text("".join(lines[: 1 + num_rows]), encoding="utf-8")


@pytest.fixture(name="scans")
def _scans(mine: Study) -> Study:
    """A study on a data set of its own, `scans`, which DVC tracks as the page says."""
    text = (mine.folder / "conf/data/digits.yaml").read_text(encoding="utf-8")
    text = text.replace("data/raw/digits", "data/raw/scans").replace(
        "prepared/digits", "prepared/scans"
    )
    (mine.folder / "conf/data/scans.yaml").write_text(text, encoding="utf-8")
    mine.edit("conf/config.yaml", "data: digits", "data: scans")
    mine.edit("dvc.yaml", r"data: \[digits\]", "data: [scans]")
    mine.commit()
    put_scans(mine, 40)
    type_in(mine, ADD)
    return mine


def num_prepared(study: Study) -> int:
    """How many rows `dvc repro` prepares of the scans."""
    study.call("dvc", "repro", "prepare")
    manifest = json.loads((study.folder / "data/prepared/scans/manifest.json").read_text("utf-8"))
    return sum(file["rows"] for name, file in manifest["files"].items() if "target" in name)


# Flows


def test_a_stage_depends_on_data_that_dvc_tracks_and_git_does_not(scans: Study) -> None:
    assert str(SCANS) not in scans.call("git", "ls-files")
    assert num_prepared(scans) == 40
    assert "didn't change, skipping" in scans.call("dvc", "repro", "prepare")
    put_scans(scans, 45)
    type_in(scans, ADD.partition("\n")[2])
    assert num_prepared(scans) == 45


def test_the_proof_in_a_clean_checkout_has_the_data_that_dvc_tracks(scans: Study) -> None:
    scans.call("dvc", "repro")
    scans.commit()
    assert scans.call("study", "pipeline").startswith("identical: ")


def test_old_data_are_used_under_new_code_and_the_new_ones_come_back(scans: Study) -> None:
    old = scans.call("git", "rev-parse", "HEAD").strip()
    first = (scans.folder / SCANS).read_bytes()
    put_scans(scans, 45)
    type_in(scans, ADD)
    second = (scans.folder / SCANS).read_bytes()
    scans.edit("conf/data/scans.yaml", "test_fraction: 0.2", "test_fraction: 0.3")
    scans.commit()
    type_in(scans, OLD, REV=old)
    assert (scans.folder / SCANS).read_bytes() == first != second
    assert "test_fraction: 0.3" in (scans.folder / "conf/data/scans.yaml").read_text("utf-8")
    assert num_prepared(scans) == 40
    type_in(scans, OLD, REV="HEAD")
    assert (scans.folder / SCANS).read_bytes() == second
    assert scans.call("git", "status", "--porcelain", "--", "data") == ""


def test_data_of_another_repository_are_those_of_the_revision(
    scans: Study, small: Study, tmp_path: Path
) -> None:
    type_in(scans, FOLDER, FOLDER=str(tmp_path / "store").lstrip("/"))
    scans.commit()
    scans.call("dvc", "push")
    scans.call("git", "tag", "v1.0")
    first = (scans.folder / SCANS).read_bytes()
    put_scans(scans, 45)
    type_in(scans, ADD)
    study = small.copy(tmp_path / "importer")
    type_in(study, IMPORT, ADDRESS=scans.folder)
    assert (study.folder / SCANS).read_bytes() == first
    assert scans.call("git", "rev-parse", "v1.0").strip() in study.call("git", "show")
    assert study.call("git", "status", "--porcelain") == ""


# Stores


class Store:
    """What `dvc push` writes to; a context manager serves it."""

    error = ""  # what DVC says of wrong credentials

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.served = contextlib.ExitStack()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.served.close()

    def add_to(self, study: Study) -> None:
        """Types what the page says for such a store."""
        type_in(study, FOLDER, FOLDER=str(self.folder / "A").lstrip("/"))

    def use(self, study: Study, *, right: bool) -> None:
        """Sets the right credentials, or wrong ones."""


class S3(Store):
    """A server that checks signatures."""

    error = "403"

    def __enter__(self) -> "Store":
        (self.folder / "bucket").mkdir(exist_ok=True)
        rclone = str(Path(sys.executable).with_name("rclone"))
        words = [rclone, "serve", "s3", f"--addr=127.0.0.1:{self.port}", "--auth-key=tester,horse"]
        self.served.enter_context(serve([*words, str(self.folder)], "Starting s3 server"))
        return self

    def add_to(self, study: Study) -> None:
        address = f"http://127.0.0.1:{self.port}"
        type_in(study, S3_BLOCK, BUCKET="bucket", KEY="tester", SECRET="horse", ADDRESS=address)

    def use(self, study: Study, *, right: bool) -> None:
        secret = "horse" if right else "zebra"
        study.call("dvc", "remote", "modify", "--local", "store", "secret_access_key", secret)


class SSH(Store):
    """An sshd of one's own, with a key for the host and one for the user."""

    error = "authentication failures|Permission denied"

    def __enter__(self) -> "Store":
        for name in ("host", "key", "other"):
            if not (self.folder / name).exists():
                words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f"]
                subprocess.run([*words, str(self.folder / name)], check=True)
        settings = {
            "ListenAddress": f"127.0.0.1:{self.port}",
            "HostKey": self.folder / "host",
            "AuthorizedKeysFile": self.folder / "key.pub",
            "StrictModes": "no",
            "UsePAM": "no",
            "PidFile": "none",
            "Subsystem": "sftp internal-sftp",
        }
        options = [f"-o{name}={value}" for name, value in settings.items()]
        privileges = Path("/run/sshd")  # of an empty folder: sshd asks for it where it is root
        if os.getuid() == 0 and not privileges.exists():
            privileges.mkdir()
            self.served.callback(privileges.rmdir)
        words = [str(shutil.which("sshd")), "-D", "-e", "-f", "/dev/null", *options]
        self.served.enter_context(serve(words, "Server listening"))
        return self

    def add_to(self, study: Study) -> None:
        self.use(study, right=True)
        type_in(study, SSH_BLOCK, HOST="host", FOLDER=str(self.folder / "A").lstrip("/"))

    def use(self, study: Study, *, right: bool) -> None:
        values = {
            "HostName": "127.0.0.1",
            "Port": self.port,
            "User": pwd.getpwuid(os.getuid()).pw_name,
            "IdentityFile": self.folder / ("key" if right else "other"),
            "IdentitiesOnly": "yes",
        }
        lines = ["Host host", *(f"  {name} {value}" for name, value in values.items())]
        folder = Path(os.environ["HOME"], ".ssh")
        folder.mkdir(exist_ok=True)
        (folder / "config").write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextlib.contextmanager
def serve(words: Sequence[str | Path], ready: str) -> Iterator[None]:
    """Runs a server, from the line that says that it is ready."""
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            said = ""
            while ready not in said:
                line = server.stderr.readline()
                assert line, f"the server ended: {said}"
                said += line
            yield
        finally:
            server.terminate()


SERVERS = [pytest.param(S3), pytest.param(SSH, marks=needs("sshd"))]


@pytest.mark.parametrize("kind", [pytest.param(Store, id="folder"), *SERVERS])
def test_what_one_clone_pushes_another_pulls(
    kind: type[Store], scans: Study, tmp_path: Path
) -> None:
    (tmp_path / "store").mkdir()
    with kind(tmp_path / "store") as store:
        store.add_to(scans)
        assert "horse" not in (scans.folder / ".dvc/config").read_text("utf-8")
        scans.commit()
        assert "new" in scans.call("dvc", "status", "--cloud", "data/raw/scans.dvc")
        assert "2 files pushed" in scans.call("dvc", "push", "data/raw/scans.dvc")
        clone = scans.clone(tmp_path / "clone")
        assert not (clone.folder / SCANS).exists()
        if (secrets := scans.folder / ".dvc/config.local").exists():
            shutil.copyfile(secrets, clone.folder / ".dvc/config.local")
        clone.call("dvc", "pull", "data/raw/scans.dvc")
        assert (clone.folder / SCANS).read_bytes() == (scans.folder / SCANS).read_bytes()
        said = clone.call("dvc", "status", "--cloud", "data/raw/scans.dvc")
        assert "Cache and remote 'store' are in sync" in said


def refused(study: Study, error: str) -> None:
    """A push ends with an error of a line that names the cause."""
    said = study.call("dvc", "push", code=None, env={"AWS_MAX_ATTEMPTS": "1"})
    (line,) = (line for line in said.splitlines() if line.startswith("ERROR:"))
    assert re.search(error, line), said
    assert "Traceback" not in said and "pushed" not in said


@pytest.mark.parametrize("kind", SERVERS)
def test_a_push_that_fails_names_the_cause_and_loses_nothing(
    kind: type[Store], scans: Study, tmp_path: Path
) -> None:
    (tmp_path / "store").mkdir()
    content = (scans.folder / SCANS).read_bytes()
    with kind(tmp_path / "store") as store:
        store.add_to(scans)
        store.use(scans, right=False)
        refused(scans, store.error)
        store.use(scans, right=True)
    refused(scans, "(?i)connect")
    assert (scans.folder / SCANS).read_bytes() == content
    with store:
        assert "2 files pushed" in scans.call("dvc", "push", "data/raw/scans.dvc")
        shutil.rmtree(scans.folder / ".dvc/cache")
        shutil.rmtree((scans.folder / SCANS).parent)
        scans.call("dvc", "pull", "data/raw/scans.dvc")
    assert (scans.folder / SCANS).read_bytes() == content
