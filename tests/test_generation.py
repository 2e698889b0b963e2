"""Claims about generation: which answers are refused, and what stands there when they are not."""

import ast
import hashlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from cookiecutter.generate import generate_context
from cookiecutter.prompt import prompt_for_config
from cookiecutter.utils import create_env_with_context
from markdown_it import MarkdownIt
from study_answers import markdown

TEMPLATE = Path(__file__).parent.parent
STUDY = TEMPLATE / "{{cookiecutter.project_slug}}"
HOOKS = {name: TEMPLATE / "hooks" / f"{name}_gen_project.py" for name in ("pre", "post")}
PYTHONS = ("3.11", "3.12", "3.13")

# SHA-256 of the words of the official text, from the line after the copyright line on; for Apache,
# of the whole text with its line "Copyright [yyyy] [name of copyright owner]".
LICENCES = {
    "MIT": "fe2a9817987f862eaced948f0468c7f51d2fedfc48c5c505b246a49a3870e9a5",
    "BSD-3-Clause": "70435d703f5e4bdca9a1fa6b9291501b0dd850d2ad5457b491ce936217b1e063",
    "Apache-2.0": "0ffddef9e48f8a09aed5caf2d44f7ba1c1be2d9b8e0a6f693b1635b2d5566645",
}

BAD_SLUGS = {
    # no lowercase identifier
    "1_bad name!": "bad_name",
    "Torch": "torch_study",
    "my-study": "my_study",
    "étude": "etude",
    "研究": "my_study",
    " ": "my_study",
    "a\nb": "a_b",
    "2": "my_study",
    "_private": "private",
    "../outside": "outside",
    # the build backend would look for src/ends and src/twice_over
    "ends_": "ends",
    "twice__over": "twice_over",
    # keywords, soft ones too
    "class": "class_study",
    "match": "match_study",
    "type": "type_study",
    # the standard library
    "json": "json_study",
    "test": "test_study",
    "distutils": "distutils_study",
    "annotationlib": "annotationlib_study",  # 3.14
    "compression": "compression_study",
    # packages that the study needs, by import and by package name
    "torch": "torch_study",
    "hydra": "hydra_study",
    "hydra_core": "hydra_core_study",
    "dvc": "dvc_study",
    "numpy": "numpy_study",
    "yaml": "yaml_study",
    "pyyaml": "pyyaml_study",
    # packages that it may need
    "torchvision": "torchvision_study",
    "pandas": "pandas_study",
    "pytorch_lightning": "pytorch_lightning_study",
    "scikit_learn": "scikit_learn_study",
    # devices on Windows
    "con": "con_study",
    "com1": "com1_study",
    "lpt0": "lpt0_study",
    # files and folders of the study
    "tests": "tests_study",
    "conf": "conf_study",
    "runs": "runs_study",
    "run": "run_study",
    "stages": "stages_study",
    "models": "models_study",
    "harness": "harness_study",
    # the study's console command
    "study": "study_study",
    # YAML would read a boolean
    "true": "true_study",
}
BAD_TEXTS = [
    ("project_name", "a/b", "a b"),
    ("project_name", "a\\b", "a b"),
    ("project_name", 'The "best" study', "The best study"),
    ("project_name", "Jane's study", "Jane s study"),
    ("project_name", "`rm`", "rm"),
    ("project_name", "two\nlines", "two lines"),
    ("project_name", "a\x1b[31mb", "a [31mb"),
    ("project_name", "", "My Study"),
    ("project_name", "  ", "My Study"),
    ("project_name", " My Study", "My Study"),
    ("description", "two\nlines", "two lines"),
    ("description", "a\ttab", "a tab"),
    ("description", "a\u2028b", "a b"),
    ("description", "", "How small a network still reads handwritten digits?"),
    ("author", "Jane\nDoe", "Jane Doe"),
    ("author", "Jane\x00Doe", "Jane Doe"),
    ("author", "Jane\x7f", "Jane"),
    ("author", "Jane\udcff", "Jane"),
    ("author", " ", "Your Name"),
]
# What is markup somewhere in Markdown or on GitHub, a line each.
MARKUP = r"""
1. x
1) x
12.
1986. A great year
3.5 gigabytes
- x
-
-- x
---
- - -
+ x
* x
***
# x
x #
## x ##
C# and F#
> x
~~~
~~~ python
~~struck~~
~one~
= x
===
| a |
a | b
*a*
**a**
2 * 3 * 4
_a_
__init__
a_b_c
_*a*_
[c](d)
![c](d)
[c][d]
[c]: d
[^1]: x
[ ] x
&copy;
&#35;
&amp;amp;
R&D
<b>
<b>x</b>
<!-- x -->
<br/>
<a@b.c>
a < b > c
<http://a.b>
http://a.b/c_d_
HTTPS://a.b/*c*
ftp://a.b/~c
www.a.b/_c_
_www.a.b_
a_b_@c.de
`a`
``a`
```
```python
\
\\
\# x
x\
a\*b
\<b>
\&copy;
!\[x](y)
"a" 'b'
:smile:
:white_check_mark: x
*:+1:*
12:30:45
http:a:
@user
#1
$x$
$$x$$
$x_1$ and $5
\$x\$
""".strip().splitlines()
AWKWARD = [
    "\"quoted\" and 'quoted'",
    '"""',
    "'''",
    "ends with a backslash \\",
    r"C:\new\table \u00e9 \"",
    "# no comment: [a, {b}] & *c !d %e @f",
    "<b>bold</b> ]]> <!-- --> </script>",
    "Zoë 张伟 עברית العربية",
    "👩‍🔬 🧪 e\u0301",
    "{% raw %}{{ braces }} {% if %} {# note #} ${dollar}{% endraw %}",
    '"); import os; os.mkdir("owned") #',
    '""" + 1 / 0 + r"""',
    "100 % $HOME `id` $(id) ; | > < ~",
    "- null",
    "very long " * 500,
]


def hook(name):
    """The hook as a module, unrendered: its names and functions need no answers."""
    spec = importlib.util.spec_from_file_location(f"{name}_hook", HOOKS[name])
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*command, cwd=None, **keywords):
    """Runs a command to its end, whatever that is."""
    words = [str(word) for word in command]
    return subprocess.run(
        words, cwd=cwd, capture_output=True, text=True, timeout=120, check=False, **keywords
    )


def git(*arguments, cwd):
    """What git prints, without the last line break."""
    done = run("git", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")


def cookiecutter(folder, *arguments, **keywords):
    """Runs the command that a user types, in the folder."""
    command = (sys.executable, "-m", "cookiecutter", "--no-input", TEMPLATE)
    return run(*command, *arguments, cwd=folder, **keywords)


def files(study):
    """Every file of the study, but for git's own."""
    inside = (path for path in sorted(study.rglob("*")) if ".git" not in path.parts)
    return [path for path in inside if path.is_file()]


def text_of(path):
    """The text of a file, or nothing where it is binary."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def assert_well_formed(study, *said):
    """Asserts that each file means something to its reader, and that no jinja was left in it.

    Args:
        study: The folder of the study.
        *said: Answers that hold braces themselves.
    """
    kinds = set()
    for path in files(study):
        text = text_of(path)
        kinds.add(path.suffix)
        if path.suffix == ".toml":
            tomllib.loads(text)
        elif path.suffix in (".yaml", ".yml"):
            list(yaml.safe_load_all(text))
        elif path.suffix == ".py":
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                compile(text, str(path), "exec")
        for answer in said:
            text = text.replace(answer, "")
        # a value of cookiecutter, but not the file cookiecutter.json
        jinja = r"{{[-+]?\s*\(?cookiecutter|cookiecutter\.(?!json\b)\w|{%"
        assert not re.search(jinja, text), path
        assert "{{" not in str(path.relative_to(study))
    assert {".toml", ".yaml", ".py"} <= kinds


def assert_refused(result, message, output, tmp_path):
    """Asserts one line on stderr that names the answer and a valid one, and not a file written."""
    key, answer, better = message
    assert result.exit_code == 1
    assert output.out == ""
    lines = output.err.splitlines()
    assert len(lines) == 1, output.err
    assert lines[0].startswith(f"{key} {answer!r} "), lines
    assert lines[0].endswith(f": {better}"), lines
    assert not list((tmp_path / "cookies").glob("*/*"))
    assert not (tmp_path / "cookies" / "outside").exists()


# Which answers are refused


@pytest.mark.parametrize("slug", BAD_SLUGS)
def test_a_slug_that_cannot_be_the_package_is_refused_and_leaves_nothing_behind(
    slug, bake, capfd, tmp_path
):
    result = bake(project_slug=slug)
    message = ("project_slug", slug, BAD_SLUGS[slug])
    assert_refused(result, message, capfd.readouterr(), tmp_path)


@pytest.mark.parametrize("message", BAD_TEXTS, ids=repr)
def test_a_line_that_would_break_toml_yaml_or_markdown_is_refused_and_leaves_nothing_behind(
    message, bake, capfd, tmp_path
):
    key, answer, _ = message
    result = bake(**{"project_slug": "my_study", key: answer})
    assert_refused(result, message, capfd.readouterr(), tmp_path)


def test_a_slug_with_a_slash_is_refused_before_any_file_is_written(bake, capfd, tmp_path):
    # once cookiecutter has made the folders, it would remove the innermost one only
    assert bake(project_slug="a/b").exit_code != 0
    assert capfd.readouterr().err.endswith(": a_b\n")
    assert files(tmp_path / "cookies") == []


def test_the_command_line_says_it_in_one_line_on_stderr_and_exits_with_1(tmp_path):
    done = cookiecutter(tmp_path, "project_slug=torch")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "project_slug 'torch' is a package that the study uses; this would do: torch_study\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_bad_answer_is_refused_before_the_next_question(tmp_path):
    command = (sys.executable, "-m", "cookiecutter", TEMPLATE)
    done = run(*command, cwd=tmp_path, input="My Study\ntorch\n1\nWhy?\nMe\n1\n")
    assert done.returncode == 1
    assert done.stderr.startswith("project_slug 'torch' ") and done.stderr.count("\n") == 1
    assert "[2/6]" in done.stdout and "[3/6]" not in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.fixture(name="terminal")
def _terminal():
    """The two ends of a terminal: of who types, and of the program."""
    if os.name != "posix":
        pytest.skip("this terminal is of POSIX")
    ends = os.openpty()
    yield ends
    for end in ends:
        os.close(end)


def test_at_a_terminal_a_bad_answer_is_asked_for_again_and_no_other_is_lost(tmp_path, terminal):
    here, there = terminal
    answers = "a/b\nMy Name\ntorch\nyaml\n\n3\nWhy?\n \nJane Doe\n4\n"
    os.write(here, answers.encode())
    command = (sys.executable, "-m", "cookiecutter", TEMPLATE)
    done = run(*command, cwd=tmp_path, stdin=there)
    assert done.returncode == 0, done.stderr
    faults = "project_name 'a/b'", "project_slug 'torch'", "project_slug 'yaml'", "author ''"
    assert len(done.stderr.splitlines()) == len(faults)
    assert all(line.startswith(fault) for line, fault in zip(done.stderr.splitlines(), faults))
    study = tmp_path / "yaml_study"  # what was offered
    assert (study / "README.md").read_text("utf-8").startswith("# My Name\n\nWhy?\n")
    project = tomllib.loads((study / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["authors"] == [{"name": "Jane Doe"}]


def test_a_terminal_is_asked_nothing_under_no_input(tmp_path, terminal):
    done = cookiecutter(tmp_path, "project_slug=torch", stdin=terminal[1])
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


def test_a_bad_answer_that_is_replayed_is_refused_too(tmp_path, home):
    assert cookiecutter(tmp_path).returncode == 0
    shutil.rmtree(tmp_path / "my_study")
    (replay,) = (home / ".cookiecutter_replay").iterdir()
    replay.write_text(replay.read_text("utf-8").replace('"my_study"', '"torch"'), "utf-8")
    done = run(sys.executable, "-m", "cookiecutter", "--replay", TEMPLATE, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("project_slug 'torch' ") and done.stderr.count("\n") == 1
    # cookiecutter's own words, for whoever debugs a template
    assert done.stdout.startswith("ERROR: Stopping generation because pre_gen_project hook ")
    assert done.stdout.endswith("Hook script failed (exit status: 1)\n")
    assert not list(tmp_path.iterdir())


def test_a_refusal_leaves_an_existing_folder_of_that_name_alone(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.csv").write_text("1,2\n")
    done = cookiecutter(tmp_path, "--overwrite-if-exists", "project_slug=data")
    assert done.returncode == 1
    assert (tmp_path / "data" / "mine.csv").read_text() == "1,2\n"


def test_an_unknown_licence_is_refused_and_leaves_nothing_behind(bake, tmp_path):
    result = bake(license="WTFPL")
    assert "'Apache-2.0', 'none'" in str(result.exception)
    assert not list((tmp_path / "cookies").glob("*/*"))


def test_every_slug_that_a_refusal_suggests_is_accepted():
    pre = hook("pre")
    reserved = [name for names in pre.RESERVED.values() for name in names]
    for answer in [*reserved, *BAD_SLUGS, "", "_", "__", "1", "test_", "TRUE", "x" * 300]:
        assert pre.fault_of_slug(pre.valid_slug(answer)) == "", answer


def test_every_line_that_a_refusal_suggests_is_accepted():
    pre = hook("pre")
    for key, answer, _ in BAD_TEXTS:
        assert pre.fault_of_text(key, pre.valid_text(key, answer)) == "", answer


def test_no_file_or_script_of_the_study_can_be_its_slug(bake):
    study = bake().project_path
    scripts = [path for path in files(study) if path.suffix == ".py" and "src" not in path.parts]
    package = [*(study / "src" / study.name).iterdir()]
    names = {path.name.split(".")[0].lower() for path in [*study.iterdir(), *scripts, *package]}
    names -= {""}
    project = tomllib.loads((study / "pyproject.toml").read_text("utf-8"))["project"]
    names |= set(project["scripts"])
    pre = hook("pre")
    free = [name for name in sorted(names) if not pre.fault_of_slug(name)]
    assert not free, f"add to STUDY in {HOOKS['pre'].name}: {' '.join(free)}"


@pytest.mark.parametrize("version", PYTHONS)
def test_no_module_of_a_supported_python_can_be_a_slug(version, pythons):
    names = "import sys, keyword as k; print(*sys.stdlib_module_names, *k.kwlist, *k.softkwlist)"
    pre = hook("pre")
    for name in run(pythons(version), "-c", names).stdout.split():
        assert pre.fault_of_slug(name), name


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Ünïcode & Friends", "unicode_friends"),
        ("3D shapes", "d_shapes"),
        ("🙂", "my_study"),
        ("long name " * 40, "long_name_long_name_long_name_long_name"),
        ("Torch", "torch_study"),
        ("Größe", "grosse"),
    ],
)
def test_the_slug_offered_for_a_name_is_a_valid_one(name, slug, bake):
    result = bake(project_name=name.strip())
    assert result.project_path.name == slug
    assert (result.project_path / "src" / slug / "__init__.py").is_file()


# Which answers are not


def citation(study):
    """CITATION.cff, with the keys that CFF 1.2.0 requires; each value but the authors is a text."""
    cited = yaml.safe_load((study / "CITATION.cff").read_text("utf-8"))
    assert cited["cff-version"] == "1.2.0" and {"message", "title", "authors"} <= cited.keys()
    assert all(isinstance(value, str) for key, value in cited.items() if key != "authors")
    return cited


@pytest.mark.parametrize("answer", AWKWARD)
def test_an_awkward_description_and_author_arrive_unharmed(answer, bake, capfd):
    result = bake(description=answer, author=answer)
    assert result.exception is None, capfd.readouterr().err
    said = result.context["description"]
    project = tomllib.loads((result.project_path / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["description"] == said.strip()
    assert project["authors"] == [{"name": said.strip()}]
    cited = citation(result.project_path)
    assert cited["abstract"] == said.strip() and cited["authors"] == project["authors"]
    assert said.strip() in (result.project_path / "LICENSE").read_text("utf-8")
    assert_well_formed(result.project_path, said, markdown(said))
    assert shown(result.project_path / "README.md") == ["My Study", said.strip()]
    assert not list(result.project_path.rglob("owned"))


@pytest.mark.parametrize(
    "name",
    ["Digits: a study # 1", "- [x] *a* {b} & c!", "Größe 张 👩‍🔬", "true", "007", "@home %1"],
)
def test_an_awkward_project_name_leaves_every_file_readable(name, bake, capfd):
    result = bake(project_name=name, project_slug="my_study")
    assert result.exception is None, capfd.readouterr().err
    assert_well_formed(result.project_path)
    assert citation(result.project_path)["title"] == name


class Page(HTMLParser):
    """Its tags, and its text between them."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts = set(), []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.texts.append(data)


def page(text):
    """The head of the page that a README is shown as."""
    render = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render
    return Page(render(text).partition("<h2>")[0])


def shown(path):
    """The lines of text that a reader sees at the head of a README."""
    return "".join(page(path.read_text("utf-8")).texts).strip("\n").split("\n")


def readme(**answers):
    """The README for the answers, rendered as cookiecutter does."""
    context = generate_context(TEMPLATE / "cookiecutter.json", extra_context=answers)
    context["cookiecutter"] = prompt_for_config(context, no_input=True)
    source = (STUDY / "README.md").read_text("utf-8")
    return create_env_with_context(context).from_string(source).render(**context)


@pytest.mark.parametrize("key", ["project_name", "description"])
def test_the_readme_shows_title_and_question_as_they_were_typed(key):
    lines = [line for line in MARKUP if not hook("pre").fault_of_text(key, line)]
    assert len(lines) > 50
    for line in lines:
        answers = {"project_name": "My Study", "description": "Why?", key: line}
        text = readme(project_slug="my_study", **answers)
        seen = page(text)
        assert "".join(seen.texts) == "{project_name}\n{description}\n".format(**answers)
        assert seen.tags <= {"h1", "p", "span"}
        # what GitHub makes of a piece of text later: an emoji, a formula, a link
        for piece in seen.texts:
            assert not re.search(r":[\w+-]+:|\$.*\$", piece), text
        assert not re.search(r"(?i)(https?|ftp)://|www\.", text.partition("##")[0]), text


def test_what_is_no_markup_is_not_escaped():
    title, question = "Größe & Form: 3.5 GB", "Why (not), at 5 % or $5 - is it so?"
    text = readme(project_name=title.replace(" &", ""), description=question)
    assert text.startswith(f"# Größe Form: 3.5 GB\n\n{question}\n")


def test_braces_typed_at_the_prompt_stay_braces(tmp_path):
    answers = "\n\n\n{{ 1 + 1 }} {% if %}\n\n\n"
    command = (sys.executable, "-m", "cookiecutter", TEMPLATE)
    done = run(*command, cwd=tmp_path, input=answers)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "my_study" / "pyproject.toml").read_text("utf-8")
    assert tomllib.loads(text)["project"]["description"] == "{{ 1 + 1 }} {% if %}"


# Licences


@pytest.mark.parametrize("licence", LICENCES)
def test_a_licence_is_the_official_text_with_year_and_author(licence, bake):
    project = bake(license=licence, author="Jane Doe").project_path
    text = (project / "LICENSE").read_text("utf-8")
    assert text.endswith(".\n") and not text.endswith("\n\n")
    copyright_line = re.search(r"^ *Copyright (?:\(c\) )?20\d\d,? Jane Doe$", text, re.MULTILINE)
    assert copyright_line, text
    if licence == "Apache-2.0":
        assert text.startswith("\n" + " " * 33 + "Apache License\n")
        official = "   Copyright [yyyy] [name of copyright owner]"
        words = text.replace(copyright_line[0], official).split()
    else:
        words = text[copyright_line.end() :].split()
    assert hashlib.sha256(" ".join(words).encode()).hexdigest() == LICENCES[licence]
    pyproject = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    assert pyproject["project"]["license"] == citation(project)["license"] == licence
    assert pyproject["project"]["version"] == citation(project)["version"]


def test_no_licence_leaves_no_licence_file_and_no_licence_field(bake):
    study = bake(license="none").project_path
    assert not (study / "LICENSE").exists()
    assert "license" not in tomllib.loads((study / "pyproject.toml").read_text("utf-8"))["project"]
    assert "license" not in citation(study)
    assert git("status", "--porcelain", cwd=study) == ""
    assert "LICENSE" not in git("ls-files", cwd=study).split()


def test_a_study_generated_over_a_folder_without_a_licence_leaves_the_licence_there(tmp_path):
    (tmp_path / "my_study").mkdir()
    licence = tmp_path / "my_study" / "LICENSE"
    for options in (["-f", "-s"], ["-f"]):
        licence.write_text("mine\n")
        assert cookiecutter(tmp_path, *options, "license=none").returncode == 0
        assert licence.read_text() == "mine\n"


# The first commit


def test_the_first_commit_holds_the_whole_study_and_leaves_a_clean_tree(bake, capfd):
    study = bake().project_path
    assert capfd.readouterr().err == ""
    assert git("rev-list", "--count", "HEAD", cwd=study) == "1"
    assert git("branch", "--show-current", cwd=study) == "main"
    assert git("status", "--porcelain", "--ignored", cwd=study) == ""
    tracked = git("ls-files", "-z", cwd=study).split("\0")
    assert sorted(filter(None, tracked)) == [
        path.relative_to(study).as_posix() for path in files(study)
    ]


def test_nothing_that_the_user_has_set_up_for_git_stops_the_first_commit(bake, home, capfd):
    hooks = home / "hooks"
    hooks.mkdir()
    for name in ("pre-commit", "commit-msg", "post-commit", "post-index-change"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch '{home}/hook-ran'\nexit 1\n")
        (hooks / name).chmod(0o755)
    shutil.copytree(hooks, home / "template" / "hooks")
    (home / "ignore").write_text("*.gz\n*.lock\nconf/\n")
    with (home / ".gitconfig").open("a") as config:
        config.write(
            f"[core]\n\thooksPath = {hooks}\n\texcludesFile = {home}/ignore\n"
            f"[init]\n\ttemplateDir = {home}/template\n\tdefaultBranch = trunk\n"
            "[commit]\n\tgpgSign = true\n[gpg]\n\tprogram = /bin/false\n"
        )
    study = bake().project_path
    assert capfd.readouterr().err == ""
    assert not (home / "hook-ran").exists()
    assert git("branch", "--show-current", cwd=study) == "trunk"
    assert git("status", "--porcelain", cwd=study) == ""
    tracked = git("ls-files", "-z", cwd=study).split("\0")
    assert sorted(filter(None, tracked)) == [
        path.relative_to(study).as_posix() for path in files(study)
    ]


def test_the_next_three_commands_are_printed(bake, capfd):
    bake(project_slug="small_net")
    lines = [line.strip() for line in capfd.readouterr().out.splitlines()]
    assert lines[-3:] == [
        "cd small_net && make env",
        ". .venv/bin/activate",
        "python run.py model.lr=1.0e-3",
    ]


def test_without_git_the_study_stands_and_one_line_says_so(bake, capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = bake()
    output = capfd.readouterr()
    assert result.exit_code == 0
    assert_well_formed(result.project_path)
    assert not (result.project_path / ".git").exists()
    assert output.err.startswith("No first commit: git is not installed")
    assert len(output.err.splitlines()) == 1
    assert "make env" in output.out


def test_without_an_identity_the_printed_command_makes_the_first_commit(bake, capfd, home):
    (home / ".gitconfig").write_text("")
    study = bake().project_path
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("No first commit: git does not know your name")
    assert run("git", "rev-parse", "--verify", "HEAD", cwd=study).returncode != 0
    done = run(*shlex.split(line.partition(" type ")[2]), cwd=study.parent)
    assert done.returncode == 0, done.stderr
    assert git("log", "--format=%an <%ae>", cwd=study) == "NAME <ADDRESS>"
    assert git("status", "--porcelain", cwd=study) == ""


def test_inside_another_repository_git_is_left_alone(bake, capfd, tmp_path):
    git("init", cwd=tmp_path)
    study = bake().project_path
    (line,) = capfd.readouterr().err.splitlines()
    assert line == f"No first commit: {tmp_path} is a repository already, and is left as it is"
    assert not (study / ".git").exists()
    assert git("ls-files", cwd=tmp_path) == ""


def test_in_a_folder_that_another_repository_ignores_the_study_has_its_own(bake, tmp_path):
    git("init", cwd=tmp_path)
    (tmp_path / ".gitignore").write_text("*\n")
    study = bake().project_path
    assert git("log", "--format=%s", cwd=study) == "Begin the study"


def test_a_study_generated_again_keeps_its_history(tmp_path):
    study = tmp_path / "my_study"
    assert cookiecutter(tmp_path).returncode == 0
    (study / "mine.txt").write_text("mine\n")
    head = git("rev-parse", "HEAD", cwd=study)
    done = cookiecutter(tmp_path, "--overwrite-if-exists", "author=Another")
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 1)
    assert git("rev-parse", "HEAD", cwd=study) == head
    assert git("diff", "--cached", cwd=study) == ""
    assert git("status", "--porcelain", "mine.txt", cwd=study) == "?? mine.txt"


def test_what_is_there_is_left_alone_when_a_study_is_generated_around_it(tmp_path):
    study = tmp_path / "my_study"
    assert cookiecutter(tmp_path).returncode == 0
    (study / "run.py").unlink()
    for path in files(study):
        path.write_bytes(b"mine\n")
    for _ in range(2):  # in a repository, and in none
        done = cookiecutter(tmp_path, "-f", "-s", "license=none", "author=Another")
        assert done.returncode == 0, done.stderr
        assert [path.name for path in files(study) if path.read_bytes() != b"mine\n"] == ["run.py"]
        shutil.rmtree(study / ".git")


def test_called_from_a_git_hook_the_study_still_gets_its_own_commit(bake, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git("init", cwd=other)
    with monkeypatch.context() as patch:
        patch.setenv("GIT_DIR", str(other / ".git"))
        patch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
        study = bake().project_path
    assert git("ls-files", cwd=other) == ""
    assert git("rev-list", "--count", "HEAD", cwd=study) == "1"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_screen_that_takes_no_words_does_not_cost_the_study(tmp_path):
    git("init", cwd=tmp_path)  # so that there is something to say
    with open("/dev/full", "w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "cookiecutter", "--no-input", str(TEMPLATE)]
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=full, check=False)
    assert done.returncode == 0
    assert_well_formed(tmp_path / "my_study")


def test_a_git_that_fails_costs_one_line_and_not_the_study(bake, capfd, home):
    with (home / ".gitconfig").open("a") as config:
        config.write("[init]\n\tdefaultBranch = no such..branch\n")
    result = bake()
    output = capfd.readouterr()
    assert result.exit_code == 0
    (line,) = output.err.splitlines()
    assert line.startswith("No first commit: ") and "no such..branch" in line
    assert "make env" in output.out


# What generation does not do


def test_generation_opens_no_connection_and_makes_no_environment(tmp_path, monkeypatch):
    log, site = tmp_path / "log", tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import json, sys\n"
        "calls = 'connect sendto sendmsg getaddrinfo gethostbyname gethostbyaddr'.split()\n"
        "calls = [f'socket.{call}' for call in calls]\n"
        "def note(event, args):\n"
        "    if event in (*calls, 'subprocess.Popen'):\n"
        f"        with open({str(log)!r}, 'a') as file:\n"
        "            file.write(json.dumps([event, args[:2]], default=str) + '\\n')\n"
        "sys.addaudithook(note)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(site))
    (tmp_path / "out").mkdir()
    assert cookiecutter(tmp_path / "out").returncode == 0
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert {event for event, _ in events} == {"subprocess.Popen"}
    commands = [arguments[1] for _, arguments in events]
    programs = {Path(command[0]).resolve() for command in commands if command[0] != "git"}
    assert programs == {Path(sys.executable).resolve()}  # the two hooks
    local = {"status", "rev-parse", "init", "config", "symbolic-ref", "add", "var", "commit"}
    paths = ("-", "/")  # options, and what -C is given
    calls = [command[1:] for command in commands if command[0] == "git"]
    verbs = {next(w for w in call if not w.startswith(paths) and "=" not in w) for call in calls}
    assert verbs == local
    assert not list((tmp_path / "out").rglob("pyvenv.cfg"))


def test_no_path_of_this_machine_stands_in_the_study_but_that_of_a_local_template(bake, home):
    study = bake().project_path
    for path in files(study):
        text = text_of(path)
        if path.name == ".cruft.json":
            for key in ("template", "_template"):
                text = text.replace(f'"{key}": "{TEMPLATE}"', "")
        for private in (TEMPLATE, study.parent, home):
            assert str(private) not in text, path


def test_two_studies_of_the_same_answers_are_the_same(bake):
    one, two = bake().project_path, bake().project_path
    assert [p.relative_to(one) for p in files(one)] == [p.relative_to(two) for p in files(two)]
    assert [p.read_bytes() for p in files(one)] == [p.read_bytes() for p in files(two)]


# The hooks on every Python that may run them


@pytest.fixture(scope="session", name="pythons")
def _pythons():
    """The interpreter of a version; a test is skipped where this machine has none."""

    def start(version):
        found = shutil.which(f"python{version}")
        script = "import sys; print(sys.executable)"
        done = run(found, "-c", script, env=os_environ) if found else None
        if not done or done.returncode:
            pytest.skip(f"no python{version} here")
        return done.stdout.strip()

    os_environ = dict(os.environ)
    return start


def rendered(name, folder, **answers):
    """The hook as cookiecutter writes it for the answers."""
    context = {
        "project_name": "My Study",
        "project_slug": "my_study",
        "data": "pictures",
        "description": "Why?",
        "author": "Your Name",
        "license": "none",
        "_template": str(TEMPLATE),
        "_repo_dir": str(TEMPLATE),
        **answers,
    }
    context = {"cookiecutter": context}
    path = folder / HOOKS[name].name
    template = create_env_with_context(context).from_string(HOOKS[name].read_text("utf-8"))
    path.write_text(template.render(**context), "utf-8")
    return path


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_keeps_to_the_grammar_of_python_3_11_and_to_the_standard_library(name):
    tree = ast.parse(HOOKS[name].read_text("utf-8"), feature_version=(3, 11))
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    modules = {a.name for node in imports if isinstance(node, ast.Import) for a in node.names}
    modules |= {node.module or "" for node in imports if isinstance(node, ast.ImportFrom)}
    assert modules and {name.partition(".")[0] for name in modules} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("version", PYTHONS)
def test_the_hooks_run_under_every_supported_python(version, pythons, tmp_path):
    python, study = pythons(version), tmp_path / "my_study"
    study.mkdir()
    (study / "README.md").write_text("# My Study\n")
    (study / "starters" / "pictures").mkdir(parents=True)
    good = run(python, "-W", "error", rendered("pre", tmp_path, author=AWKWARD[4]), cwd=study)
    assert (good.returncode, good.stderr) == (0, "")
    bad = run(python, "-W", "error", rendered("pre", tmp_path, project_slug="json"), cwd=study)
    assert (bad.returncode, len(bad.stderr.splitlines())) == (1, 1)
    post = run(python, "-W", "error", rendered("post", tmp_path), cwd=study)
    assert (post.returncode, post.stderr) == (0, "")
    assert git("ls-files", cwd=study) == ".cruft.json\nREADME.md"
