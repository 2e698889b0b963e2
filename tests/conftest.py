"""What every test of the template starts from: a bare home, a known git identity, a way to bake."""

import os
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parent.parent


@pytest.fixture(name="home", autouse=True)
def _home(tmp_path_factory, monkeypatch):
    """A home of the test's own, so that nothing set up on this machine has a say."""
    home = tmp_path_factory.mktemp("home")
    gitconfig = home / ".gitconfig"
    gitconfig.write_text("[user]\n\tname = A Tester\n\temail = tester@example.org\n")
    for variable in [name for name in os.environ if name.startswith("GIT_") or name == "EMAIL"]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return home


@pytest.fixture(name="bake")
def _bake(cookies):
    """Generates a study from the answers given, in a folder of its own."""
    return lambda **answers: cookies.bake(extra_context=answers, template=str(TEMPLATE))
