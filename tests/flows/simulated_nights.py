"""Nights against a real Prefect server.

Simulated are the clock, the server's scheduler (each night is a run that is created for its time), and the programs of
the stages before publish, which write what trainings and an evaluation would have. Real are the flow, the plan, the
publish stage with its gate, the events, the automations and their webhook.
"""

import itertools
from datetime import datetime

import yaml
from finished_run import evaluate_result, train_result, write_export, write_samples
from finished_stage import write_checkpoint
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.schedules import CronSchedule
from prefect.flow_engine import run_flow
from prefect.states import Scheduled
from tiny_experiment import write_tiny_experiment

from flows import night as module
from flows import pretrain_sft as flow_module
from flows.pretrain_sft import pretrain_sft
from titanflow.common.digests import folder_digests
from titanflow.nightly.table import read_nights
from titanflow.planning.plan import make_plan
from titanflow.runs.errors import StageError, write_error
from titanflow.runs.results import PrepareResult, PublishResult, TrackerRecord, write_result

NAME = "nightly-nights"
FIRST = "nothing was published here before, so there is nothing to compare it with"


def write_stage(folder, name, run, right, pull_request=""):
    """What a stage leaves in ``folder`` that is to lie in ``run / name``; the evaluation finds ``right`` percent.

    Only where a test isn't about it, of publishing: with a gate at 50 percent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if name == "prepare":
        write_result(folder, PrepareResult())
    elif right is None:
        write_error(folder, StageError(type="FloatingPointError", message="the loss is nan at step 3"))
    elif name == "publish":
        status = "published" if right > 50 else "held back"
        result = PublishResult(target="folder", location="/published", status=status)
        if pull_request:
            result = PublishResult(target="hub", location=pull_request, status="proposed", pull_request=pull_request)
        write_result(folder, result)
    elif name == "evaluate":
        digests = folder_digests(folder.parent / "sft" / "export")
        scores = {"tiny_colour": {"acc": right / 100, "acc_stderr": 0.04}}
        result = evaluate_result(
            scores={"base": scores, "sft": scores},
            samples={"tiny_colour": 100},
            n_shot={},
            task_versions={"tiny_colour": "1.0"},
            higher_is_better={"tiny_colour": {"acc": True}},
            folders=dict.fromkeys(("base", "sft"), run / "sft" / "export"),
            digests=dict.fromkeys(("base", "sft"), digests),
        )
        write_result(folder, result)
        write_samples(folder, result)
    else:
        export = write_export(folder / "export")
        (export / "model.safetensors").write_bytes(run.name.encode() * 9)
        write_checkpoint(folder / "checkpoint" / "step-12")
        digests = folder_digests(export)
        checkpoint = run / name / "checkpoint" / "step-12"
        there = {"export": run / name / "export", "export_digests": digests, "checkpoint": checkpoint, "step": 12}
        write_result(folder, train_result(name, **there))
        record = TrackerRecord(id="1", mode="online", url=f"https://wandb.ai/{run.name}")
        (folder / "wandb.json").write_text(record.model_dump_json())


class Nights:
    """An experiment's nights: ``clock`` is the time that it is."""

    def __init__(self, root, monkeypatch):
        self.configs = write_tiny_experiment(root)
        self.runs = root / "runs" / "nights"
        self.published = root / "published"
        self.right: int | None = None
        self.clock = None
        self.publishes = True
        self.pull_request = ""
        count = itertools.count()
        self.write()

        def planned(experiment, configs, run, settings):
            plan, made = make_plan(experiment, configs, run, settings), root
            for stage in plan.stages:
                # The data that it would find again are simulated, too.
                if stage.stage == "prepare" and (stage.run.folder / "result.json").exists():
                    stage.state = "CACHED"
                made = root / f"made-{next(count)}" if stage.stage == "prepare" else made
                if stage.stage != "publish" or not self.publishes:
                    write_stage(made / stage.stage, stage.stage, plan.folder, self.right, self.pull_request)
                    fails = self.right is None and stage.stage != "prepare"
                    copy = 'cp -r "$0"/. "$1"' + ("; exit 1" if fails else "")
                    stage.command = ["sh", "-c", copy, str(made / stage.stage), str(stage.run.folder)]
            return plan

        monkeypatch.setattr(flow_module, "make_plan", planned)
        monkeypatch.setattr(module, "clock", lambda: self.clock)
        self.parameters = {"run": "{date}", "night": True, "experiment": "nights", "configs": str(self.configs)}
        self.deployment = self.deployed(NAME, self.parameters)

    def deployed(self, name, parameters):
        schedule = CronSchedule(cron="30 0 * * *", timezone="Europe/Berlin")
        with get_client(sync_client=True) as client:
            return client.create_deployment(
                flow_id=client.create_flow(pretrain_sft),
                name=name,
                schedules=[DeploymentScheduleCreate(schedule=schedule, active=False)],
                parameters=parameters,
            )

    def write(self, **nightly):
        gate = {"better_than_last": True, "tasks": ["tiny_colour"], "resamples": 200}
        publish = {"overrides": {"folder": str(self.published), "gate": gate}}
        experiment = {
            "extends": ["tiny.yaml"],
            "exp_name": "nights",
            "nightly": nightly,
            "notify": {"webhook_block": "nights-receiver"},
            "modules": {"publish": publish},
        }
        (self.configs / "experiments" / "nights.yaml").write_text(yaml.safe_dump(experiment))

    def scheduled(self, when, deployment=None):
        with get_client(sync_client=True) as client:
            state = Scheduled(scheduled_time=datetime.fromisoformat(when))
            return client.create_flow_run_from_deployment(deployment or self.deployment, state=state)

    def runs_at(self, flow_run, when, right=90):
        """Runs a scheduled night as its worker would, at that time; without a figure its training fails."""
        self.clock = datetime.fromisoformat(when)
        self.right = right
        with get_client(sync_client=True) as client:
            now = client.read_flow_run(flow_run.id)
            run_flow(pretrain_sft, flow_run=now, parameters=now.parameters, return_type="state")
            return client.read_flow_run(flow_run.id)

    def table(self):
        return {row.date: row.state for row in read_nights(self.runs)}


def artifact(flow_run, key):
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run.id]))
    with get_client(sync_client=True) as client:
        return next(one.data for one in client.read_artifacts(artifact_filter=of_run) if one.key == key)
