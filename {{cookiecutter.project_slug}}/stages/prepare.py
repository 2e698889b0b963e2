"""Raw data to splits, as conf/data/ says: drawn, written and hashed by the harness.

Type:
    python stages/prepare.py
    python stages/prepare.py data.prepare.split_seed=1 data.folder=data/other
"""

from pathlib import Path

from omegaconf import DictConfig

from {{ cookiecutter.project_slug }}.harness import configuration
from {{ cookiecutter.project_slug }}.harness.configuration.building import read_raw
from {{ cookiecutter.project_slug }}.harness.training import preparation


@configuration.entrypoint
def main(config: DictConfig) -> None:
    """Read the raw data; drop duplicates, draw the splits, write them."""
    parameters = configuration.to_values(config.data.prepare)
    preparation.prepare(Path(config.data.folder), read_raw(config), parameters)


if __name__ == "__main__":
    main()  # pylint: disable=no-value-for-parameter
