"""Finds passwords and tokens in what is about to be published, with detect-secrets."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import StudyError

# Those that look like nothing else: no hash, no number and no base64 of a record is one.
DETECTORS = """
    AWSKeyDetector AzureStorageKeyDetector BasicAuthDetector GitHubTokenDetector GitLabTokenDetector
    JwtTokenDetector NpmDetector OpenAIDetector PrivateKeyDetector PypiTokenDetector
    SendGridDetector SlackDetector SquareOAuthDetector StripeDetector TelegramBotTokenDetector
""".split()
# Quoted values of keys called password, secret, api_key, ... Skipped: lines without such a word,
# for speed, and lines without a digit, where the value is a word.
KEYWORD = {
    "name": "KeywordDetector",
    "keyword_exclude": r"^(?!.*\d)|^(?!.*(key|pass|pwd|secret|contrase))",
}
# What detect-secrets 1.5 does not know: newer tokens of Anthropic, GitHub, Google, Hugging Face and
# OpenAI; a key or a certificate in base64, as a kubeconfig holds it.
MORE = re.compile(
    r"\bgithub_pat_\w{60}|\bhf_[A-Za-z]{30}|\bsk-(?:ant|proj|svcacct)-[\w-]{20}"
    r"|(?<![\w+/])(?:AIza[\w-]{35}(?![\w+/-])|LS0tLS1CRUdJ[T]i)"
)
ALLOWED = "# pragma: allowlist secret"  # a comment that detect-secrets knows
WINDOW, STEP = 1000, 700  # of a long line; the detectors take the square of its length


def refuse_secrets(paths: Iterable[Path]) -> None:
    """Scans records and patches, if they exist; of a patch the lines that it adds.

    Raises:
        StudyError: a line looks like a secret, or detect-secrets is not installed.
    """
    with _scanner() as kind_of:
        for path in paths:
            for number, line in _lines(path):
                if kind := kind_of(line):
                    reason = f"line {number} looks like a secret ({kind}); nothing is published"
                    hint = f"take it out of the study, or write {ALLOWED} beside it if it is none"
                    stage = f"train@{path.parent.name}"  # forced: DVC's cache has no records
                    again = f"type: rm -r {path.parent}; dvc repro -sf {stage}; dvc repro"
                    raise StudyError(f"{path}: {reason}; {hint}; then {again}")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The numbers and the lines that are scanned; a long one in pieces that overlap."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for number, line in enumerate(text.split("\n"), 1):
        if path.suffix != ".patch" or line.startswith("+"):
            for start in range(0, max(1, len(line) - WINDOW + STEP), STEP):
                yield number, line[start : start + WINDOW]


@contextmanager
def _scanner() -> Iterator[Callable[[str], str]]:
    """Returns what kind of secret a line looks like, or an empty string."""
    try:
        from detect_secrets.core.scan import scan_line
        from detect_secrets.settings import get_plugins, transient_settings
    except ImportError as error:
        reason = "detect-secrets is missing, which looks for passwords in what is published"
        hint = 'make env (after make lock, if pyproject.toml does not yet name it, group "report")'
        raise StudyError(f"{reason}; type: {hint}") from error

    def kind_of(line: str) -> str:
        if MORE.search(line) and ALLOWED not in line:
            return "Token"
        if not any(set(plugin.analyze_string(line)) for plugin in plugins):  # the fast half
            return ""
        return next((found.type for found in scan_line(line)), "")

    with transient_settings({"plugins_used": [*({"name": name} for name in DETECTORS), KEYWORD]}):
        plugins = get_plugins()
        yield kind_of
