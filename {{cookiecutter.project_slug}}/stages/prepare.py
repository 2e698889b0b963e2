"""Raw data to splits, as conf/data/ says: drawn, written and hashed by the harness.

Type:
    python stages/prepare.py data={{ cookiecutter.__data }}
    python stages/prepare.py data={{ cookiecutter.__data }} data.prepare.split_seed=1 data.folder=data/other
"""

from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from {{ cookiecutter.project_slug }}.harness import configuration
from {{ cookiecutter.project_slug }}.harness.runs.reads import hash_inputs
from {{ cookiecutter.project_slug }}.harness.study import ROOT
from {{ cookiecutter.project_slug }}.harness.training import preparation


@configuration.entrypoint
def main(config: DictConfig) -> None:
    """Read the raw data; drop duplicates, divide the rows, fit the encoder, write them."""
    config = configuration.resolve_data(config)
    folder, parameters = Path(config.data.folder), configuration.to_record(config.data.prepare)
    fields, encoder = configuration.read_raw(config), configuration.build_encoder(config)
    raw, splitter = partial(hash_inputs, ROOT, {}, folder), configuration.build_splitter(config)
    preparation.prepare(folder, fields, parameters, raw, encoder, splitter)


if __name__ == "__main__":
    main()  # pylint: disable=no-value-for-parameter
