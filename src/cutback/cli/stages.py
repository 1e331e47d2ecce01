"""The parts of a run, one after the other, with a checkpoint after each and within each training."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

import cutback
from cutback.cli import histograms
from cutback.cli.job import Job
from cutback.cli.report import Measured, file_size, make_report, reload_lines, write_result
from cutback.cli.staging import write_whole
from cutback.errors import MethodUnfinished
from cutback.graph.architecture import hash_of
from cutback.measure import compare_latency
from cutback.planning.plan import Cost, Plan
from cutback.surgery.cut import cut_fresh
from cutback.surgery.initialise import start_anew
from cutback.train import Epoch, FitResult, TrainSettings
from cutback.train.loop import Loop, MethodMaker, Watch
from cutback.train.recovery import Repair, Situation, Step, Training
from cutback.train.run_folder import RunFolder
from cutback.train.task import Objective
from cutback.train.tensorboard import event_writer
from cutback.train.weights import put_weights, weights_of

LATENCY_REPEATS = 50
DENSE, CUT = "dense", "cut"
"""Networks that are kept until the end."""


@dataclass
class State:
    """Where a run is; all of it goes into a checkpoint.

    Attributes:
        stage: number of the part that is being done.
        plan: leads from the dense network to the one at the start of this part, as JSON.
        model: values of the network at the start of this part; ``None`` within a training, which has them.
        training: state of the training that is being done.
        last: values after the last epoch, where others were kept.
        findings: what has been found out so far, for the report.
        epochs: how many there were, in all trainings.
        logged: bytes of the log.
        seconds: how long the run has taken.
    """

    stage: int = 0
    plan: str | None = None
    model: dict[str, Tensor] | None = None
    training: dict[str, Any] | None = None
    last: dict[str, Tensor] | None = None
    findings: dict[str, Any] = field(default_factory=lambda: {"recovery": []})
    epochs: int = 0
    logged: int = 0
    seconds: float = 0.0

    def to_tree(self) -> dict[str, Any]:
        """Return all of it, for a checkpoint."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def worth_keeping(self) -> bool:
        """Whether a training has begun, so that there is something to go on from."""
        return bool(self.epochs) or self.training is not None


class Stages:
    """A run that is being done.

    Args:
        job: model, data, and what is done with them.
        folder: the run's folder.
        state: where the run is.
        start: when this process began with it, by ``time.monotonic``.
    """

    def __init__(self, job: Job, folder: RunFolder, state: State, start: float) -> None:
        self._job, self._folder, self._state = job, folder, state
        self._start = start - state.seconds
        self._events: Any = None

    def run(self) -> dict[str, Any] | None:
        """Do what is left; return the report, or ``None`` in processes other than the main one."""
        job, state = self._job, self._state
        self._restore()
        chain = zip(job.request.chain, job.request.chain_text.split(","), strict=False)
        stages: list[Callable[[], None]] = [self._baseline, self._method if job.request.method else self._cut]
        stages += [self._rewind] if job.request.rewind else []
        stages += [
            lambda step=step, text=text, number=number: self._recover(step, text.strip(), number)
            for number, (step, text) in enumerate(chain)
        ]
        try:
            if job.request.tensorboard and job.launch.is_main:
                self._events = event_writer(self._folder.path / "tensorboard", state.epochs + 1)
            for number in range(state.stage, len(stages)):
                stages[number]()
                state.stage, state.training, state.model = number + 1, None, weights_of(job.model)
                self._checkpoint()
                state.model = None
            return self._finish() if job.launch.is_main else None
        finally:
            if self._events is not None:
                self._events.close()

    # ----------------------------------------------------------------------------------------------------- the parts

    def _baseline(self) -> None:
        """Train the network where it has no trained weights; keep it as the dense one."""
        request = self._job.request
        epochs = request.baseline_epochs
        settings = self._job.settings(epochs, request.learning_rate, 0)
        result, _ = self._train("baseline", f"training the baseline, {epochs} epochs", settings)
        self._note("baseline", result)
        self._keep(DENSE)

    def _cut(self) -> None:
        """Cut the network once."""
        with self._job.reporter.step("cutting and proving"):
            plan, proof = self._job.cut(self._job.model)
        self._after_cut(plan, {"proof": dataclasses.asdict(proof)})

    def _method(self) -> None:
        """Prune the network by a method, while it trains."""
        job, request = self._job, self._job.request
        described = request.described_method
        if described is None:
            raise ValueError("no method was asked for")
        name, epochs = described.name, request.epochs_of_method
        settings = dataclasses.replace(job.settings(epochs, request.method_learning_rate, 1), keep="last")
        result, loop = self._train("method", f"{name}, {epochs} epochs", settings, make_method=job.make_method)
        method = loop.method
        finished = method is not None and method.finished
        if not finished and described.about.budget in {"hits", "stops_below"}:
            raise MethodUnfinished(
                f"method {name!r} has not reached its budget in {epochs} epochs; start again with more --method-epochs"
            )
        if not finished:
            job.reporter.line(f"note: method {name!r} was not finished after {epochs} epochs")
        plan = None if method is None else method.plan()
        about = {"name": name, "settings": request.settings_of_method, "finished": finished}
        if method is not None:
            told = method.records()
            about["records"] = {key: value for key, value in told.items() if isinstance(value, int | float)}
            about["found"] = method.findings()
        self._note("method", result, about)
        self._after_cut(plan or self._nothing_cut(), {"proof": None})

    def _after_cut(self, plan: Plan, found: dict[str, Any]) -> None:
        self._state.plan = plan.to_json()
        figure = self._job.figure(self._job.model)
        self._state.findings |= {**found, "cut_validation": figure}
        self._log("cut", validation=figure, macs=[plan.costs["macs"].before, plan.costs["macs"].after])
        self._keep(CUT)

    def _rewind(self) -> None:
        """Draw new weights for the widths that were found: what follows trains them from scratch."""
        start_anew(self._job.model, seed=self._job.request.seed)
        self._log("rewound")

    def _recover(self, step: Step, text: str, number: int) -> None:
        """Win accuracy back by one step."""
        job, request, findings = self._job, self._job.request, self._state.findings
        start = time.monotonic()
        if isinstance(step, Training):
            settings = job.settings(step.epochs, request.finetune_learning_rate, number + 1 + bool(request.method))
            title = "fine-tuning" if text.startswith("finetune") else text.partition(":")[0]
            objective = step.objective(self._situation())
            title = f"{title}, {step.epochs} epochs"
            result, _ = self._train(f"recovery {number + 1}", title, settings, objective=objective)
            found = _summed_up(result)
            findings["finetune"] = found
            before, after = result.start, result.chosen
        else:
            if not isinstance(step, Repair):
                raise TypeError(f"{text} is neither a repair nor a training")
            before = job.figure(job.model)
            with job.reporter.step(text):
                outcome = step.apply(self._situation())
            job.launch.share(job.model)
            after = job.figure(job.model)
            self._state.last = None
            found = {
                "changed": len(outcome.done),
                "skipped": [list(pair) for pair in outcome.skipped],
                "notes": list(outcome.notes),
            }
        row = {"step": text, "validation_before": before, "validation_after": after, **found}
        findings["recovery"].append({**row, "seconds": round(time.monotonic() - start, 1)})
        self._log("recovered", **row)

    def _finish(self) -> dict[str, Any]:
        """Measure the networks, each on the test split once, and write the result; in the main process alone."""
        job, state, request = self._job, self._state, self._job.request
        findings, plan = state.findings, self._plan
        networks = {DENSE: self._kept(DENSE, None), CUT: self._kept(CUT, plan), "final": job.model}
        rows = findings["recovery"]
        validations = {
            DENSE: findings["baseline"]["chosen_validation_accuracy"],
            CUT: findings["cut_validation"],
            "final": rows[-1]["validation_after"] if rows else findings["cut_validation"],
        }
        with job.reporter.step("reading the test split"):
            measured = {name: self._measured(network, validations[name]) for name, network in networks.items()}
            last = self._last_epoch(measured["final"])
        with job.reporter.step("timing"):
            latencies = compare_latency(networks, job.pictures(), repeats=LATENCY_REPEATS, threads=request.threads)
        report = make_report(
            request,
            job.data,
            job.task,
            measured=measured,
            last_epoch=last,
            latencies=latencies,
            findings=findings,
            plan=plan,
            reload=reload_lines(job.built, request),
            seconds=time.monotonic() - self._start,
        )
        for name, found in histograms.recorded(self._folder.events()).items():
            write_whole(self._folder.path / f"{name}.svg", histograms.drawn(found, f"{name} after each epoch"))
        write_result(job.model, plan, report, self._folder.path)
        self._log("finished")
        return report

    # ------------------------------------------------------------------------------------------------------- training

    def _train(
        self,
        name: str,
        title: str,
        settings: TrainSettings,
        *,
        objective: Objective | None = None,
        make_method: MethodMaker | None = None,
    ) -> tuple[FitResult, Loop]:
        """Train the network, or go on with it; note the weights of the last epoch.

        Args:
            name: of the training, in the log.
            title: of the training, for the user.
            settings: how it is trained.
            objective: what is minimised, ``None`` for the task's own objective.
            make_method: makes the method that prunes meanwhile.
        """
        job, state = self._job, self._state
        with job.reporter.training(title) as (progress, told):

            def noted(epoch: Epoch, rate: float, speed: float) -> None:
                state.epochs += 1
                figure = job.task.shown(epoch.validation)
                text = f"epoch {epoch.number}/{settings.epochs}, loss {epoch.train_loss:.4f}, validation {figure}"
                told(f"{text}, {speed:,.0f} pictures/s")
                values = {"train_loss": epoch.train_loss, "validation": epoch.validation, "learning_rate": rate}
                values["pictures_per_second"] = round(speed, 1)
                told_by_method = {} if loop.method is None else loop.method.records()
                more = {"method": told_by_method} if told_by_method else {}
                self._log("epoch", training=name, epoch=epoch.number, **values, **more)
                values |= {key: value for key, value in told_by_method.items() if isinstance(value, int | float)}
                for key, value in values.items() if self._events is not None else ():
                    self._events.add_scalar(f"{name}/{key}", value, state.epochs)

            loop = Loop(
                job.model,
                job.data,
                settings,
                launch=job.launch,
                task=job.task,
                state=state.training,
                watch=Watch(progress, noted, self._checkpoint_within),
                objective=objective,
                make_method=make_method,
            )
            self._forecast(title, loop)
            result = loop.run()
        state.last = loop.last
        return result, loop

    def _forecast(self, title: str, loop: Loop) -> None:
        """Tell what the method costs beside its training, before it begins."""
        method = loop.method
        costs = {} if method is None or method.finished else method.forecast()
        if costs:
            figures = ", ".join(f"{value:,} {name}" for name, value in costs.items())
            self._job.reporter.line(f"{title}: at most {figures}")
            self._log("forecast", **costs)

    def _checkpoint_within(self, loop: Loop) -> None:
        self._state.training = loop.state()
        self._checkpoint()

    # ---------------------------------------------------------------------------------------------------- checkpoints

    def _checkpoint(self) -> None:
        state = self._state
        if self._job.launch.is_main:
            state.logged, state.seconds = self._folder.logged, time.monotonic() - self._start
            self._folder.save(state.to_tree())

    def _restore(self) -> None:
        """Make the network what it was at the start of the part at hand."""
        state, model = self._state, self._job.model
        if state.plan is not None and self._plan.slices:
            cut_fresh(model, self._plan)
        if state.model is not None:
            put_weights(model, state.model)
            state.model = None
        model.to(self._job.launch.device)

    @property
    def _plan(self) -> Plan:
        if self._state.plan is None:
            raise ValueError("nothing was cut yet")
        return Plan.from_json(self._state.plan)

    def _keep(self, name: str) -> None:
        """Keep the present network."""
        if self._job.launch.is_main:
            self._folder.keep(name, {"weights": weights_of(self._job.model)})

    def _kept(self, name: str, plan: Plan | None) -> nn.Module:
        """Return a network that was kept, in the main process with its values."""
        network = self._job.fresh(plan)
        if self._job.launch.is_main:
            put_weights(network, self._folder.kept(name)["weights"])
        return network

    # --------------------------------------------------------------------------------------------------------- helpers

    def _situation(self) -> Situation:
        job = self._job
        dense = self._kept(DENSE, None)
        job.launch.share(dense)
        return Situation(dense, job.model, self._plan, job.sample, job.task, job.launch.device)

    def _measured(self, model: nn.Module, validation: float) -> Measured:
        job = self._job
        figure = job.figure_alone(model, "test")
        macs, params = cutback.measure.macs(model, job.example), cutback.measure.params(model)
        memory = cutback.measure.run_time_memory(model, job.pictures().to(job.launch.device)).peak
        return Measured(figure, validation, macs, params, file_size(model), memory)

    def _last_epoch(self, final: Measured) -> dict[str, float] | None:
        """Return figures of the network after the last epoch of the last training, where one was the last step."""
        findings, job = self._state.findings, self._job
        rows = findings["recovery"]
        if not rows or "last_validation_accuracy" not in rows[-1]:
            return None
        if self._state.last is None:
            return {"test": final.accuracy, "validation": final.validation_accuracy}
        network = job.fresh(self._plan)
        put_weights(network, self._state.last)
        return {"test": job.figure_alone(network, "test"), "validation": rows[-1]["last_validation_accuracy"]}

    def _nothing_cut(self) -> Plan:
        """Return the plan that leaves the network whole."""
        model = self._job.model
        architecture = hash_of(model)
        macs, params = cutback.measure.macs(model, self._job.example), cutback.measure.params(model)
        return Plan(architecture, architecture, (), {}, {}, {"macs": Cost(macs, macs), "params": Cost(params, params)})

    def _note(self, name: str, result: FitResult, more: dict[str, Any] | None = None) -> None:
        self._state.findings[name] = {**(more or {}), **_summed_up(result)}

    def _log(self, event: str, **values: object) -> None:
        if self._job.launch.is_main:
            self._folder.log(event, **values)


def _summed_up(result: FitResult) -> dict[str, Any]:
    """Sum up a training: the epoch whose weights were chosen, and the last one."""
    return {
        "epochs": len(result.epochs),
        "chosen_epoch": result.chosen_epoch,
        "chosen_validation_accuracy": result.chosen,
        "last_validation_accuracy": result.last,
        "stopped": result.stopped,
    }
