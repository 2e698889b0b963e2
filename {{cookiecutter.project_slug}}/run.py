"""One configuration, or a sweep with -m: start reading here.

Type:
    python run.py model.lr=1.0e-3
    python run.py -m model=linear,mlp seed=0,1,2
The same command again does what is missing: a run that is finished is not done twice, one that was
stopped goes on from its last checkpoint. force=true does it anew.
"""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from {{ cookiecutter.project_slug }} import configuration

log = logging.getLogger(__name__)
Metrics = dict[str, dict[str, float]]  # split, name, value


@configuration.entrypoint
def main(config: DictConfig) -> float | None:
    """Settle what the run is, and do it unless it is done; returns the best validation value."""
    config, resume = configuration.settle(config)
    if config.task == "check":
        check(config)
        return None
    # torch takes seconds to import: --help, --cfg, tab completion and most mistakes do without
    from {{ cookiecutter.project_slug }} import (
        checkpoints,
        data,
        identity,
        reproducibility,
        runs,
    )

    root, values = configuration.ROOT, configuration.to_values(config)
    prepared = data.check_prepared(config.data.folder, config.data.prepare)
    device = reproducibility.kind_of(config.device)
    known_by = identity.identify(root, values, prepared, device)
    typed = configuration.typed_overrides()
    with runs.claim(root, known_by, values, typed, resume=resume) as folder:
        record = runs.read_finished(folder, but_for_budget=resume is not None)
        if record is not None and checkpoints.restore_results(folder, record):
            log.info("%s: is this run, and finished; to do it anew: force=true", folder)
            if config.run_dir is not None or not (folder / "config.yaml").exists():
                configuration.write(config, folder)
            metrics = record["metrics"]
        else:
            metrics = train(config, folder, known_by)
    for split, numbers in metrics.items():
        log.info("%s: %s", split, "  ".join(f"{key} {val:.4f}" for key, val in numbers.items()))
    return float(metrics["validation"][config.training.monitor])


def check(config: DictConfig) -> None:
    """The model against every check, as a table; nothing is trained and nothing written."""
    from {{ cookiecutter.project_slug }} import preflight, reproducibility, testing

    device = reproducibility.choose_device(config.device)
    reproducibility.set_determinism(config.deterministic, num_threads=config.num_threads)
    values, name = configuration.to_values(config), configuration.chosen("model")
    outcomes = preflight.check(values, device, name=name, slow=True)
    print(testing.table(outcomes))
    preflight.refuse(outcomes)


def train(config: DictConfig, folder: Path, known_by: dict[str, Any]) -> Metrics:
    """Seed, data, model, train, evaluate, record."""
    from {{ cookiecutter.project_slug }} import data, files, records, reproducibility

    device = reproducibility.choose_device(config.device)
    reproducibility.set_determinism(config.deterministic, num_threads=config.num_threads)
    reproducibility.seed_everything(config.seed)
    splits = {name: data.Split(config.data.folder, name) for name in ("train", "validation")}
    trainer = configuration.build_trainer(config, splits["train"], device)
    trainer.folder = folder
    values, typed = configuration.to_values(config), configuration.typed_overrides()
    with records.recording(
        folder, configuration.ROOT, identity=known_by, config=values, overrides=typed
    ) as record:
        if config.preflight:
            from {{ cookiecutter.project_slug }} import preflight

            told = preflight.check_prepared(values, splits["train"])
            outcomes = preflight.check(values, device, name=" ".join(typed), slow=False)
            record["checks"] = list(dict.fromkeys([*record["checks"], told, *map(str, outcomes)]))
            preflight.refuse(outcomes)
        trainer.resume()
        log.info("run folder: %s", folder)
        configuration.write(config, folder)
        record["ended_by"] = trainer.fit(splits["train"], splits["validation"])
        metrics = {"validation": trainer.evaluate(splits["validation"])}
        if config.test:
            metrics["test"] = trainer.evaluate(data.Split(config.data.folder, "test"))
        files.write_atomically(folder / "metrics.json", files.to_json(metrics))
        record["metrics"] = metrics
    return metrics


if __name__ == "__main__":
    main()  # pylint: disable=no-value-for-parameter
