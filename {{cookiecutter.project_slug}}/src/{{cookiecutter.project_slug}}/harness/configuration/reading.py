"""The one place that reads YAML: a mistake in a file is named by file, line and column.

Hydra loads the files of conf/ itself. Each is looked at before it does, which takes milliseconds.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from ..errors import StudyError
from ..study import ROOT

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # without libyaml the slower one
MAX_VALUES = 10_000  # in a file, each alias replaced by what it stands for
MAX_DEPTH = 100
TYPES = ("str", "int", "float", "bool", "null", "map", "seq", "merge", "timestamp", "value")
INDENT = "compare its indentation with the lines above; each level is two spaces"
HINTS = {  # what libyaml and PyYAML say, and what to do
    "mapping values are not allowed": f"{INDENT}; a value that holds ': ' is put in quotes",
    "expected key": INDENT,
    "block end": INDENT,
    "expected ':'": "after a key comes a colon and a space",
    "expected ',' or": "close the bracket, or put a comma between two values",
    "quoted scalar": "close the quote",
    "undefined alias": "an *alias repeats what has an &anchor above it",
    "single document": "remove the line ---",
    "start any token": "put a value that begins with this character in quotes",
}


def check_files(folder: Path) -> None:
    """Looks at each YAML file of a folder.

    Raises:
        StudyError: names file, line and column, and says what to do.
    """
    for path in sorted(folder.rglob("*.yaml")):
        node = parse(path)
        if node is None:
            raise StudyError(f"{_shown(path)}: is empty; for a file without keys, write " + "{}")
        if not isinstance(node, yaml.MappingNode):
            hint = "after each key comes a colon and a space"
            raise _error(path, node.start_mark, "a file must consist of lines KEY: VALUE", hint)


def load(path: Path) -> Any:
    """The values of a YAML file, as OmegaConf holds them.

    Raises:
        StudyError: names file, line and column, and says what to do.
    """
    parse(path)
    return OmegaConf.load(path)


def parse(path: Path) -> yaml.Node | None:
    """The nodes of a YAML file, each with its line and column; None if it is empty.

    Raises:
        StudyError: names file, line and column, and says what to do.
    """
    try:
        content = path.read_bytes()
        text = content.decode()
        _check_depth(path, text)
        node: yaml.Node | None = yaml.compose(text, Loader=LOADER)
    except UnicodeDecodeError as error:
        before = content[: error.start].decode()
        raise StudyError(f"{_end_of(path, before)}: is not UTF-8; save it as UTF-8") from error
    except OSError as error:
        raise StudyError(f"{_shown(path)}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise _describe(path, text, error) from error
    if node is not None:
        _count(path, node, {})
    return node


def _check_depth(path: Path, text: str) -> None:
    """Refuses what no person has written, before anything of it is kept."""
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _error(path, event.start_mark, "is nested too deeply", "write fewer levels")


def _count(path: Path, node: yaml.Node, counts: dict[int, int]) -> int:
    """How many values a node has, each alias replaced by what it stands for; checks each once."""
    if counts.get(id(node)) == 0:
        raise _error(path, node.start_mark, "repeats itself without end", "remove the *alias")
    if id(node) in counts:
        return counts[id(node)]
    counts[id(node)] = 0  # under way
    if node.tag.removeprefix("tag:yaml.org,2002:") not in TYPES:
        name = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise _error(path, node.start_mark, f"{name} is not allowed", "write plain values")
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        _check_keys(path, node)
        children = [value for _, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    count = 1 + sum(_count(path, child, counts) for child in children)
    if count > MAX_VALUES:
        wrong = f"has more than {MAX_VALUES} values, with its aliases replaced"
        raise _error(path, node.start_mark, wrong, "write fewer, or keep them in a data file")
    counts[id(node)] = count
    return count


def _check_keys(path: Path, node: yaml.MappingNode) -> None:
    """Each key is a word, and there once."""
    seen: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _error(path, key.start_mark, "a key must be a word", "put text in quotes")
        if key.value in seen:
            wrong = f"the key {key.value} is already in line {seen[key.value]}"
            raise _error(path, key.start_mark, wrong, "remove one of the two")
        seen[key.value] = key.start_mark.line + 1


def _describe(path: Path, text: str, error: yaml.YAMLError) -> StudyError:
    if not isinstance(error, yaml.MarkedYAMLError):  # a character that YAML does not know
        place = _end_of(path, text[: getattr(error, "position", 0)])
        return StudyError(f"{place}: a character that cannot be printed; remove it")
    problem, context = error.problem or "cannot be read", error.context or ""
    is_open = "end of stream" in problem or "expected ','" in problem  # it began further up
    mark = (is_open and error.context_mark) or error.problem_mark or error.context_mark
    line = text.split("\n")[mark.line]
    if "\t" in line[: len(line) - len(line.lstrip())] or line[mark.column :].startswith("\t"):
        return _error(path, mark, "a tab", "indent with spaces")
    hints = (hint for words, hint in HINTS.items() if words in f"{context} {problem}")
    return _error(path, mark, problem, next(hints, INDENT))


def _error(path: Path, mark: yaml.Mark, wrong: str, hint: str) -> StudyError:
    return StudyError(f"{_position(path, mark)}: {wrong}; {hint}")


def _position(path: Path, mark: yaml.Mark) -> str:
    return f"{_shown(path)}, line {mark.line + 1}, column {mark.column + 1}"


def _end_of(path: Path, text: str) -> str:
    """The position that follows a text, with which a file begins."""
    lines = text.split("\n")
    return f"{_shown(path)}, line {len(lines)}, column {len(lines[-1]) + 1}"


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def find_key(folder: Path, key: str, choices: Mapping[str, str | None]) -> str:
    """Where a key of a composed configuration stands: its file, line and column, or nothing.

    Args:
        folder: That of the configurations.
        key: With dots.
        choices: The option that was taken of each group: its file may set the key.
    """
    groups = [(folder / group / f"{name}.yaml", group) for group, name in choices.items()]
    # a file for the whole configuration has the last word, then config.yaml
    places = [*((path, "") for path, _ in groups), (folder / "config.yaml", ""), *groups[::-1]]
    for path, group in places:
        prefix = f"{group.replace('/', '.')}." if group else ""
        if not path.is_file() or not key.startswith(prefix):
            continue
        is_whole = re.match(r"#\s*@package\s+_global_\s*$", path.read_text("utf-8"), re.M)
        if bool(is_whole) == (not group) or path == folder / "config.yaml":
            if mark := _mark_of(parse(path), key.removeprefix(prefix).split(".")):
                return _position(path, mark)
    return ""


def _mark_of(node: yaml.Node | None, parts: list[str]) -> yaml.Mark | None:
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value == parts[0]:
            return _mark_of(value, parts[1:]) if parts[1:] else key.start_mark
    return None
