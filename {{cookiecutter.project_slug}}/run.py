"""One configuration, or a sweep with -m: start reading here.

Type:
    python run.py model.lr=1.0e-3
    python run.py -m model=linear,mlp seed=0,1,2
    python run.py resume=runs/NAME
"""

import logging

from omegaconf import DictConfig

from {{ cookiecutter.project_slug }} import configuration, records

log = logging.getLogger(__name__)


@configuration.entrypoint
def main(config: DictConfig) -> float:
    """Compose, seed, data, model, train, evaluate, record; returns the best validation value."""
    config, resume = configuration.settle(config)
    # torch takes seconds to import: --help, --cfg, tab completion and most mistakes do without
    from {{ cookiecutter.project_slug }} import data, reproducibility

    device = reproducibility.choose_device(config.device)
    reproducibility.set_determinism(config.deterministic, num_threads=config.num_threads)
    reproducibility.seed_everything(config.seed)
    inputs = data.check_prepared(config.data.folder, config.data.prepare)
    train, validation = (data.Split(config.data.folder, name) for name in ("train", "validation"))
    trainer = configuration.build_trainer(config, train, device)

    typed = configuration.typed_overrides()
    folder = resume or records.take_folder(config.run_dir, typed, force=config.force)
    with records.recording(folder, configuration.ROOT, overrides=typed, data=inputs) as record:
        log.info("run folder: %s", folder)
        records.write_atomically(folder / "config.yaml", configuration.to_yaml(config))
        trainer.folder = folder
        if (folder / "last.pt").exists():
            trainer.load(folder / "last.pt")
            log.info("resumed behind step %d", trainer.step)
        record["ended_by"] = trainer.fit(train, validation)
        metrics = {"validation": trainer.evaluate(validation)}
        if config.test:
            metrics["test"] = trainer.evaluate(data.Split(config.data.folder, "test"))
        records.write_atomically(folder / "metrics.json", records.to_json(metrics))
        for split, values in metrics.items():
            log.info("%s: %s", split, "  ".join(f"{key} {val:.4f}" for key, val in values.items()))
    return metrics["validation"][config.training.monitor]


if __name__ == "__main__":
    main()  # pylint: disable=no-value-for-parameter
