"""Forecasts what a stage will cost: parameters, operations, memory of a rank, time and money."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from titanflow.architectures.new_tokens import new_tokens
from titanflow.architectures.weights import model_weights
from titanflow.config.keys.optimizer import MUON
from titanflow.config.keys.training import Lora
from titanflow.planning.forecast.device import DeviceSpec
from titanflow.planning.forecast.duration import estimated, measured_duration
from titanflow.planning.forecast.export_memory import export_memory
from titanflow.planning.forecast.flops import Counts, count
from titanflow.planning.forecast.history import History, work_digest
from titanflow.planning.forecast.layout import Layout
from titanflow.planning.forecast.matrices import Matrices
from titanflow.planning.forecast.memory import Memory, memory
from titanflow.planning.origin.inheritance import grown_rows

if TYPE_CHECKING:
    from titanflow.config.experiment import Experiment
    from titanflow.config.module import Module
    from titanflow.runs.contract import StageRun


@dataclass(frozen=True)
class Forecast:
    """A stage's forecast; unknown values are None, and ``unknown`` says why.

    ``like`` is the digest of all that its speed depends on: later stages with the same digest use this one's time.
    ``tokens`` and ``flops`` are those that are left to train, at ``tokens_per_second``. ``seconds`` include start-up
    and export; ``source`` says where they are from. ``cost`` is in the currency of ``price_per_hour``, for all
    ``devices`` from start to end; ``device`` is the name of one. ``whole_parameters`` are those of
    ``trained_parameters`` that are in no adapter: LoRA's ``modules_to_save``; ``muon`` are the matrices that Muon
    steps, while AdamW steps all else. ``memory`` is one rank's while it trains, ``export`` the bytes of the one that
    exports the model, of its machine's memory. ``disk`` are the bytes that the stage has yet to write
    (:mod:`titanflow.planning.forecast.disk`).
    """

    like: str
    devices: int = 1
    parameters: int | None = None
    trained_parameters: int | None = None
    tokens: int | None = None
    flops: int | None = None
    memory: Memory | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    source: str = ""
    price_per_hour: float | None = None
    cost: float | None = None
    unknown: str = ""
    device: str = ""
    whole_parameters: int = 0
    seconds_per_step: float | None = None
    export: int | None = None
    disk: int | None = None
    muon: Matrices | None = None

    @property
    def is_measured(self) -> bool:
        """Whether its times are those of the same work on such a device."""
        return self.source.startswith("measured")

    def as_json(self) -> dict[str, Any]:
        """The forecast as ``titanflow plan --json`` and the manifest hold it."""
        values = dataclasses.asdict(self)
        if self.memory is not None:
            values["memory"] = {**values["memory"], "certain": self.memory.certain, "total": self.memory.total}
        return values


def forecast_stage(run: StageRun, done: int, experiment: Experiment, device: DeviceSpec, history: History) -> Forecast:
    """Forecasts one stage of a plan; ``done`` are the steps that a training has behind it."""
    module = stage_module(run, experiment)
    launcher = run.config.get("launcher") or {}
    devices = int(launcher.get("nproc_per_node") or 1) * int(launcher.get("nnodes") or 1)
    known = Forecast(like=work_digest(run, experiment, device.name), devices=devices, device=device.name)
    if module is not None and module.trains:
        known = _training(known, run, done, module, device, history)
    elif found := history.of(run, known.like):
        known = dataclasses.replace(known, seconds=found.wall, source=f"measured on {found.run}")
    if (price := experiment.spec.price_per_hour) is None:
        return known
    cost = None if known.seconds is None else cost_of(known.seconds, devices, price)
    return dataclasses.replace(known, price_per_hour=price, cost=cost)


def stage_module(run: StageRun, experiment: Experiment) -> Module | None:
    """A stage's module; for one that adds tokens, its model has the rows that they need."""
    module = experiment.modules.get(run.stage)
    if module is None or module.base is None or not new_tokens(run):
        return module
    return dataclasses.replace(module, model_args={**module.model_args, "vocab_size": grown_rows(module.base, run)})


def _training(
    known: Forecast, run: StageRun, done: int, module: Module, device: DeviceSpec, history: History
) -> Forecast:
    layout = Layout.of(module.config)
    counts, on_device, unknown = model_forecast(module, device.kind)
    steps = max(0, int(run.config["training"]["steps"]) - done)
    tokens = steps * layout.tokens_per_step
    optimizer = module.config["optimizer"]
    ns_steps = optimizer["muon_ns_steps"] if optimizer["name"] == MUON else 0
    duration = estimated(counts, tokens, layout, device, ns_steps) if counts else None
    if found := history.of(run, known.like):
        duration = measured_duration(found, steps, tokens)
    known = dataclasses.replace(known, tokens=tokens, memory=on_device, unknown=unknown)
    if duration is not None:
        known = dataclasses.replace(known, **dataclasses.asdict(duration))
    if counts is not None:
        known = dataclasses.replace(
            known,
            parameters=counts.parameters,
            trained_parameters=counts.trained,
            whole_parameters=counts.whole,
            muon=counts.matrices if ns_steps else None,
            export=export_memory(module.config, module.config["model"]["name"], module.model_args, counts.parameters),
            flops=counts.flops_per_token * (known.tokens or 0),
        )
    return known


def model_forecast(module: Module, device: str) -> tuple[Counts | None, Memory | None, str]:
    """A training module's counts and a rank's memory, or why there are none; ``device`` is cpu or cuda."""
    config, family = module.config, module.config["model"]["name"]
    shapes = model_weights(family, module.model_args)
    if shapes is None:
        return None, None, f"no formula for the family {family}"
    counts = count(family, module.model_args, shapes, int(config["training"]["seq_len"]), Lora.of(config))
    return counts, memory(config, family, module.model_args, shapes, counts, device), ""


def cost_of(seconds: float, devices: int, price_per_hour: float) -> float:
    """What the devices cost together, in the price's currency."""
    return seconds / 3600 * devices * price_per_hour
