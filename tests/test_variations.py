"""The variations of Debian's reprotest: `study pipeline` finds the same bytes under each."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import Study, make_once, needs

pytestmark = pytest.mark.slow
NOBODY = "65534"
MAY_READ = "+dac_read_search"  # another user cannot read the environment of the study otherwise
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
AS_READER = (*AS_NOBODY, f"--inh-caps={MAY_READ}", f"--ambient-caps={MAY_READ}")
ELSEWHERE = ("unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "-")
HOST_OF_ONES_OWN = ("unshare", "--map-root-user", "--uts", "true")
REPROTEST = ("reprotest", "disorderfs", "faketime")  # packages of Debian and Ubuntu


@dataclass(frozen=True)
class Variation:
    """Where and how the command runs: `{home}` is a home of somebody with other habits."""

    env: Mapping[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()  # before the command
    folder: str = "."  # where the study is


VARIATIONS = {
    "variables": Variation(
        {
            "COLUMNS": "40",
            "EMAIL": "somebody@example.org",
            "OMP_NUM_THREADS": "2",
            "PYTHONHASHSEED": "12345",
            "PYTHONIOENCODING": "ascii",
            "PYTHONOPTIMIZE": "2",
            "SOURCE_DATE_EPOCH": "1",
            "TERM": "dumb",
            "USER": "somebody",
        }
    ),
    "path": Variation(folder="a longer path/with ünicode,\nlines and 'quotes'/" + "x" * 100),
    "home": Variation({"HOME": "{home}", "XDG_CONFIG_HOME": "{home}/.config"}),
    # the first where it is installed, or else C: upper case of i is another letter
    "locale": Variation({"LC_ALL": "tr_TR.UTF-8", "LANG": "C", "LANGUAGE": "tr"}),
    "time zone": Variation({"TZ": "Asia/Kathmandu"}),
    "umask": Variation(words=("sh", "-c", 'umask 077; exec "$@"', "-")),
    "processors": Variation(words=("taskset", "--cpu-list", "0")),
}


def make_home(folder: Path) -> Path:
    """A home whose settings of git and matplotlib are not those of the study's author."""
    (folder / ".config" / "matplotlib").mkdir(parents=True)
    lines = "font.size: 30\nlines.linewidth: 7\nsvg.hashsalt: other\n"
    (folder / ".config" / "matplotlib" / "matplotlibrc").write_text(lines, encoding="utf-8")
    settings = "[core]\nautocrlf = true\n[diff]\nnoprefix = true\n[status]\nrelativePaths = false\n"
    (folder / ".gitconfig").write_text(settings, encoding="utf-8")
    return folder


def is_identical(study: Study, folder: Path, *variations: Variation) -> bool:
    """Whether `study pipeline` says so of a copy under all of these variations."""
    home = make_home(folder / "home")
    copy = study.copy(folder.joinpath(*(item.folder for item in variations)) / "my_study")
    env = {key: text for item in variations for key, text in item.env.items()}
    words = [word for item in variations for word in item.words]
    env = {key: text.format(home=home) for key, text in env.items()}
    try:
        said = copy.call(*words, "study", "pipeline", env=env)
    except AssertionError as error:
        print(error)
        return False
    return said.splitlines()[-1].startswith("identical")


def works(*words: str) -> bool:
    """Whether this machine has a program, and allows what it is asked for."""
    found = shutil.which(words[0]) is not None
    return found and subprocess.run(words, check=False, capture_output=True).returncode == 0


@pytest.fixture(name="published", scope="module")
def _published(small: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The small study with its published numbers, committed."""

    def make(folder: Path) -> None:
        published = small.copy(folder / "my_study")
        published.call("dvc", "repro")
        published.commit()

    return Study(make_once(tmp_path_factory, "published", make) / "my_study")


def test_the_proof_is_the_same_under_other_settings(published: Study, tmp_path: Path) -> None:
    if is_identical(published, tmp_path / "all", *VARIATIONS.values()):
        return
    kept = {
        name: is_identical(published, tmp_path / name, variation)
        for name, variation in VARIATIONS.items()
    }
    pytest.fail(f"not identical; alone, these are: {kept}")


@pytest.mark.skipif(not works(*ELSEWHERE, *AS_READER, "true"), reason="needs root, on Linux")
def test_the_proof_is_the_same_for_another_user_on_another_host(published: Study) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        theirs = published.copy(Path(folder, "my_study"))
        home = make_home(Path(folder, "home"))
        subprocess.run(["chown", "-hR", f"{NOBODY}:{NOBODY}", folder], check=True)
        words = (*ELSEWHERE, *AS_READER, "sh", "-c", 'hostname; id -u; exec "$@"', "-")
        said = theirs.call(*words, "study", "pipeline", env={"HOME": str(home)}).splitlines()
    assert said[:2] == ["elsewhere", NOBODY] and said[-1].startswith("identical")


@needs(*REPROTEST)
def test_reprotest_sees_no_variation_in_the_proof(published: Study) -> None:
    """Clock and order of files too: it builds twice, the second time with all varied."""
    without = ["user_group"]  # needs sudo
    without += [] if works(*HOST_OF_ONES_OWN) else ["domain_host"]
    without += [] if os.access("/dev/fuse", os.W_OK) else ["fileordering"]
    varied = ",-".join(["+all", *without])
    proof = 'PYTHONPATH="$PWD/src" study pipeline | tail -n 1 > verdict.txt'
    build = f"{proof}; grep ^identical verdict.txt"
    words = ("reprotest", "--no-diffoscope", f"--variations={varied}", "-c", build)
    said = published.call(*words, ".", "verdict.txt")
    assert "Reproduction successful" in said
