"""Check a model, and print a table of the checks of docs/checks.md.

Nothing is trained in runs/ and nothing is written.
    study check model=NAME
    study check experiment=NAME --fast
"""

import argparse
import os

from ..configuration.composing import compose, to_values
from ..configuration.resolving import check
from ..study import ROOT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="as for run.py")
    parser.add_argument("--fast", action="store_true", help="leave out what takes seconds a check")


def run(arguments: argparse.Namespace) -> int:
    """Prints the table; a check that fails is an error."""
    os.chdir(ROOT)
    config = compose(arguments.overrides)
    check(config, arguments.overrides)
    from ..checks import preflight, table  # with torch, which takes seconds to import
    from ..training.determinism import set_up

    device = set_up(config.device, config.deterministic, config.num_threads, config.seed)
    name = " ".join(arguments.overrides) or "the defaults"
    outcomes = preflight.check_model(to_values(config), device, name=name, slow=not arguments.fast)
    print(table(outcomes))
    preflight.refuse_failed(outcomes)
    return 0
