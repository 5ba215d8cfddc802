"""The training loop, told in the order in which things happen.

Principles kept here: a step's gradient is the sum over its samples divided by their number, whatever the layout of
processes and micro-batches; every random choice is a function of (seed, stream, position); every process leaves
the loop at the same step.
"""

from __future__ import annotations

import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import gather_object
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn

from vitft.data import order
from vitft.data.batches import StagedBatch, TrainBatches
from vitft.data.source import ImageSource, ImageSplit, StreamSplit
from vitft.data.stream_batches import StreamBatches
from vitft.durations import Duration
from vitft.errors import StoppedEarly, TrainError
from vitft.model.adapt import DropPath, choose_trainable, freeze_unused
from vitft.model.load import Pretrained
from vitft.model.processor import ImageProcess, normalisation, takes_bgr
from vitft.recipe import Recipe
from vitft.run import Run, duration_text
from vitft.scoring.predict import Scored, evaluation_batches, score_split
from vitft.scoring.scores import is_better, scores
from vitft.train import checkpoint
from vitft.train.checkpoint import RESUMABLE_CHANGES, Best, TrainState
from vitft.train.optim import AveragedWeights, lr_at, make_optimizer, parameter_groups, set_lr
from vitft.train.plan import Plan
from vitft.views.policy import policy

_MOST_OVERFLOWS = 30  # fp16 halves its loss scale each time: 2^16 is used up long before


@dataclass
class Fitted:
    """What training leaves: the chosen weights stand in the model, and it can still be scored."""

    state: TrainState
    weights: str
    images_per_second: float
    score: Callable[..., Scored]


def fit(
    run: Run,
    recipe: Recipe,
    plan: Plan,
    source: ImageSource,
    pretrained: Pretrained,
    accelerator: Any,
    *,
    resume: bool = False,
) -> Fitted:
    """Train ``pretrained.model`` in place.

    Raises:
        StoppedEarly: after SIGTERM, SIGUSR1 or the time limit, with a complete checkpoint.
        TrainError: for a loss that is not finite, a disk that is full, a checkpoint that is damaged.
    """
    training = _build(run, recipe, plan, source, pretrained, accelerator)
    state = training.restore() if resume else training.state
    started, first_step = time.monotonic() - state.elapsed_seconds, state.step
    run.status.start("training", plan.total_steps, state.step)
    speed = _Speed()

    with _stop_requests(recipe.train.time_limit) as request:
        if training.evaluation_is_due():  # the run was stopped in it, or just before
            training.evaluate(request)
            if stop := training.agree(request):
                raise training.stopped_early(stop)
        last_step = state.step if state.is_out_of_patience else plan.total_steps
        for step, batches in enumerate(training.batches.steps(state.step, last_step), start=state.step):
            speed.begin()
            lr = lr_at(
                step,
                peak=recipe.optim.lr,
                total_steps=plan.total_steps,
                warmup_steps=plan.warmup_steps,
                schedule=recipe.optim.schedule,
            )
            set_lr(training.optimizer, lr)
            loss, grad_norm = training.take_step(step, batches)
            state.step = step + 1
            if training.averaged is not None:
                training.averaged.update(state.step)
            images_per_second = speed.end(training.batches.layout.step_size(step))

            run.log(
                "step",
                step=state.step,
                loss=loss,
                grad_norm=grad_norm,
                lr=lr,
                images_per_second=round(images_per_second, 1),
            )
            accelerator.log({"loss": loss, "grad_norm": grad_norm, "lr": lr}, step=state.step)
            training.show_progress(loss, lr, images_per_second, first_step)

            if training.evaluation_is_due() and not training.agree(request):
                training.evaluate(request)
                speed.forget()
            stop = training.agree(request)
            is_last = state.step == plan.total_steps or state.is_out_of_patience
            if state.step % plan.checkpoint_every == 0 or is_last or stop:
                state.elapsed_seconds = time.monotonic() - started
                training.save()
                speed.forget()
            if stop:
                raise training.stopped_early(stop)
            if is_last:
                break

    if state.step < plan.total_steps:
        run.note(f"stopped at step {state.step}: no better validation score for {recipe.train.patience}")
    run.status.stop()
    state.elapsed_seconds = time.monotonic() - started
    weights = training.take_chosen_weights()
    return Fitted(state, weights, speed.average, training.score)


@dataclass
class _Training:
    """The parts of a run, built once."""

    run: Run
    recipe: Recipe
    plan: Plan
    source: ImageSource
    accelerator: Any
    model: Any  # the bare model; ``wrapped`` is what accelerate made of it
    wrapped: Any
    optimizer: Any
    averaged: AveragedWeights | None
    drop_path: DropPath | None
    batches: TrainBatches | StreamBatches
    view: Any
    class_weights: Tensor | None
    process: ImageProcess
    normalisation: tuple[tuple[float, ...], tuple[float, ...]]
    bgr: bool
    state: TrainState
    best_weights: dict[str, Tensor]
    warned_of: set[str]

    # --- one step ------------------------------------------------------------------------------------------

    def take_step(self, step: int, batches: list[StagedBatch]) -> tuple[float, float]:
        """Take one optimizer step over this process's micro-batches; return loss and gradient norm of all."""
        self._note_images(batches)
        on_device = [batch.to(self.accelerator.device) for batch in batches]
        for _ in range(_MOST_OVERFLOWS):
            loss = self._accumulate_until_it_fits(step, on_device)
            if not math.isfinite(loss):
                raise self._non_finite(step, loss)
            limit = self.recipe.optim.max_grad_norm or math.inf
            grad_norm = float(self.accelerator.clip_grad_norm_(self._learning(), limit))
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            if not self.optimizer.step_was_skipped:  # fp16 gradients overflowed: again, at a lower scale
                if not math.isfinite(grad_norm):
                    raise self._non_finite(step, grad_norm)
                return loss, grad_norm
        raise self._non_finite(step, math.inf)

    def _accumulate_until_it_fits(self, step: int, batches: list[StagedBatch]) -> float:
        while True:
            micro = self.state.micro_batch_size
            parts = [part for batch in batches for part in (batch.split(micro) if len(batch) > micro else [batch])]
            try:
                return self._accumulate(step, parts)
            except RuntimeError as error:
                # With several processes the others wait inside a collective; they cannot be called back.
                if not should_reduce_batch_size(error) or micro <= 2:
                    raise
                smaller = max(2, micro // 4 * 2)
                if self.plan.world_size > 1:
                    where = f"process {self.accelerator.process_index} ran out of memory at step {step + 1}"
                    raise TrainError(
                        f"{where} with {micro} images",
                        hint=f"vitft finetune --resume {self.run.folder} --set train.micro_batch_size={smaller}",
                    ) from error
                self.state.micro_batch_size = smaller
                self.optimizer.zero_grad(set_to_none=True)
                clear_device_cache(garbage_collection=True)
                self.run.note(
                    f"out of memory with {micro} images at once: now {self.state.micro_batch_size}, same steps"
                )

    def _accumulate(self, step: int, parts: list[StagedBatch]) -> float:
        """Sum the gradients of all micro-batches; they are reduced over processes with the last one only."""
        step_size = self.batches.layout.step_size(step)
        local_loss = torch.zeros((), device=self.accelerator.device)
        for number, part in enumerate(parts):
            torch.manual_seed(self._dropout_seed(step, number))  # for dropout inside transformers
            is_last = number == len(parts) - 1
            with nullcontext() if is_last else self.accelerator.no_sync(self.wrapped):
                loss = self._loss(part)
                # DDP averages over processes; the step's loss is the sum over all samples / their number.
                self.accelerator.backward(loss * (self.plan.world_size / step_size))
            local_loss += loss.detach()
        if not parts:  # a short last step left this process without samples; the others wait for its gradients
            blank = torch.zeros(1, 3, *self.process.size, device=self.accelerator.device)
            self._set_positions(None)
            self.accelerator.backward(self.wrapped(blank).logits.sum() * 0)
        return float(self.accelerator.reduce(local_loss, "sum")) / step_size

    def _loss(self, batch: StagedBatch) -> Tensor:
        """Return the summed cross-entropy of a micro-batch with its soft targets."""
        pixel_values, targets = self.view(batch)
        if self.bgr:
            pixel_values = pixel_values.flip(1)
        self._set_positions(batch.positions.to(pixel_values.device))
        with self.accelerator.autocast():
            logits = self.wrapped(pixel_values).logits
        return F.cross_entropy(logits.float(), targets, weight=self.class_weights, reduction="sum")

    def _set_positions(self, positions: Tensor | None) -> None:
        if self.drop_path is not None:
            self.drop_path.positions = positions

    def _dropout_seed(self, step: int, number: int) -> int:
        return order.derived_seed(self.recipe.train.seed, "dropout", step, self.accelerator.process_index, number)

    def _learning(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _non_finite(self, step: int, value: float) -> TrainError:
        last = checkpoint.newest(self.run.checkpoints)
        good = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        return TrainError(
            f"the loss or its gradient became {value} at step {step + 1}; {good}",
            hint=f"a lower learning rate than optim.lr: {self.recipe.optim.lr:g}, or --precision fp32",
        )

    # --- evaluation ----------------------------------------------------------------------------------------

    def evaluation_is_due(self) -> bool:
        """Whether the validation split is still to be scored at this step."""
        step, last = self.state.step, self.plan.total_steps
        return self.state.evaluated < step and (step % self.plan.evaluate_every == 0 or step == last)

    def evaluate(self, request: Callable[[], str]) -> None:
        """Score the validation split, keep the weights if they are the best, and notice when patience is out.

        A request to stop cuts it short and nothing is kept of it: the resumed run begins with it.
        """
        validation = self.source.validation
        assert validation is not None
        with self.averaged.in_place() if self.averaged is not None else nullcontext():
            scored = self.score(validation, request)
            if self.agree(request):
                return
            now = scores(scored.tally)
            better = is_better(now, self.state.best)
            if better:
                self.state.best = Best(now.top1, now.nll, self.state.step)
                if self.recipe.train.weights == "best":
                    self.best_weights = {k: v.detach().to("cpu", copy=True) for k, v in self.model.state_dict().items()}
        self.run.log("validation", step=self.state.step, **now.present())
        self.accelerator.log({"validation/top1": now.top1, "validation/nll": now.nll}, step=self.state.step)
        taken = min(self.state.step * self.plan.batch_size, self.plan.total_samples)
        epoch = taken / self.plan.num_samples if self.plan.num_samples else 0.0
        self.run.say(
            f"  step {self.state.step}/{self.plan.total_steps}  epoch {epoch:.2f}  "
            f"validation top-1 {now.top1:.4f}  nll {now.nll:.4f}{'  best' if better else ''}"
        )
        assert self.state.best is not None
        patience = self.plan.patience
        self.state.evaluated = self.state.step
        self.state.is_out_of_patience = patience is not None and self.state.step - self.state.best.step >= patience

    def score(
        self, split: ImageSplit | StreamSplit, request: Callable[[], str] = lambda: "", *, collect: bool = False
    ) -> Scored:
        """Score a split with the weights that stand in the model, exactly once each row over all processes."""
        self._set_positions(None)
        batches = evaluation_batches(
            split,
            self.process,
            batch_size=min(64, max(8, self.state.micro_batch_size)),
            skip_bad=self.recipe.data.bad_images == "skip",
            workers=self.plan.workers,
            accelerator=self.accelerator,
        )
        scored = score_split(
            self.model,
            itertools.takewhile(lambda _: not request(), batches),
            num_classes=len(self.source.classes),
            normalisation=self.normalisation,
            accelerator=self.accelerator,
            collect=collect,
        )
        self._note_bad({row.where: row.reason for row in scored.bad_rows})
        return scored

    # --- saving and restoring ------------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint; all processes meet before and after."""
        self.state.stream = gather_object([self.batches.state_dict()])
        for bad in gather_object([self.state.bad_rows]):
            self._note_bad(bad)  # what the other processes met is news here
        self.state.bad_rows = dict(sorted(self.state.bad_rows.items()))
        failure: list[str] = []
        if self.accelerator.is_main_process:
            self.state.metrics_length = self.run.metrics_length()
            scaler = self.accelerator.scaler
            self.state.scaler = scaler.state_dict() if scaler is not None else {}
            tensors = {
                "model": self.model.state_dict(),
                "optimizer": checkpoint.optimizer_tensors(self.optimizer.optimizer),
                "averaged": self.averaged.tensors if self.averaged is not None else {},
                "best": self.best_weights,
            }
            try:
                checkpoint.save(self.run.checkpoints, self.state, tensors, self.recipe.train.keep_checkpoints)
            except TrainError as error:
                failure = [error.wrong, error.hint or ""]
        # Also the barrier: nobody goes on, or ends, before the main process has written (or failed).
        failures = [each for each in gather_object([failure]) if each]
        if failures:
            raise TrainError(failures[0][0], hint=failures[0][1])

    def restore(self) -> TrainState:
        """Continue from the newest complete checkpoint, or from the start if there is none."""
        path = checkpoint.newest(self.run.checkpoints)
        if path is None:
            self.run.say("no checkpoint yet: starting from the first step")
            return self.state
        state, tensors = checkpoint.load(path)
        self._check_unchanged(state)
        self.model.load_state_dict(tensors["model"])
        checkpoint.load_optimizer(self.optimizer.optimizer, tensors["optimizer"])
        if self.averaged is not None:
            self.averaged.load(tensors["averaged"])
        if self.accelerator.scaler is not None and state.scaler:
            self.accelerator.scaler.load_state_dict(state.scaler)
        self.best_weights = tensors.get("best", {})
        if len(state.stream) == self.plan.world_size:
            self.batches.load_state_dict(state.stream[self.accelerator.process_index])
        self.run.cut_metrics(state.metrics_length)
        for change in (
            f"{k}: {state.layout.get(k)} -> {v}" for k, v in self.state.layout.items() if state.layout.get(k) != v
        ):
            self.run.say(f"  resuming is close but not bit for bit, as this changed: {change}")
        state.layout = self.state.layout
        state.micro_batch_size = min(state.micro_batch_size, self.state.micro_batch_size)
        self.run.say(f"resumed from {path} at step {state.step} of {self.plan.total_steps}")
        self.state = state
        return state

    def _check_unchanged(self, state: TrainState) -> None:
        if state.fingerprint != self.source.fingerprint:
            raise TrainError(
                f"the dataset {self.source.id} is not the one that this run was started with: "
                "its rows, labels or order have changed",
                hint="bring the old data back, or start a new run",
            )
        changed = Recipe.model_validate(state.recipe).differences(self.recipe)
        changed = [line for line in changed if line.split(":")[0] not in RESUMABLE_CHANGES]
        if changed:
            raise TrainError(
                f"the recipe of {self.run.folder} has changed since its checkpoint was written: {'; '.join(changed)}",
                allowed=f"changes of {', '.join(sorted(RESUMABLE_CHANGES))}",
                hint=f"undo the change in {self.run.folder / 'recipe.yaml'}, or start a new run",
            )

    def take_chosen_weights(self) -> str:
        """Put the weights that become the model into it; return which they are."""
        if self.recipe.train.weights == "best" and self.best_weights:
            self.model.load_state_dict(self.best_weights)
            assert self.state.best is not None
            return f"best (step {self.state.best.step})"
        if self.averaged is not None:
            with torch.no_grad():
                for name, tensor in {
                    **dict(self.model.named_parameters()),
                    **dict(self.model.named_buffers()),
                }.items():
                    if name in self.averaged.tensors:
                        tensor.copy_(self.averaged.tensors[name])
            return "last, averaged"
        return "last"

    # --- telling -------------------------------------------------------------------------------------------

    def agree(self, request: Callable[[], str]) -> str:
        """Return why all processes stop after this step, empty if they go on."""
        reason = request()
        if self.plan.world_size == 1:
            return reason
        wanted = torch.tensor([float(bool(reason))], device=self.accelerator.device)
        if float(self.accelerator.reduce(wanted, "sum")) == 0:
            return ""
        return reason or "another process was asked to stop"

    def stopped_early(self, reason: str) -> StoppedEarly:
        """Return the outcome of a run that stops at this step, whose checkpoint is written."""
        return StoppedEarly(
            f"stopped at step {self.state.step} of {self.plan.total_steps} ({reason}); the checkpoint is complete",
            hint=f"vitft finetune --resume {self.run.folder}",
        )

    def show_progress(self, loss: float, lr: float, images_per_second: float, first_step: int) -> None:
        """Show step, loss, speed and, once a few steps were timed, how long the run will take."""
        done, total = self.state.step, self.plan.total_steps
        if images_per_second:
            left = (self.plan.total_samples - done * self.plan.batch_size) / images_per_second
            if done == min(first_step + 5, total - 1):
                self.run.say(f"  {images_per_second:.1f} images/s: {duration_text(max(left, 0))} to go on this machine")
            self.run.status.update(
                done,
                total,
                f"loss {loss:.3f}  lr {lr:.2e}  {images_per_second:.0f} images/s  {duration_text(max(left, 0))} left",
            )

    def _note_images(self, batches: list[StagedBatch]) -> None:
        for batch in batches:
            self._note_bad({row.where: row.reason for row in batch.skipped})
            for note in batch.notes:
                if note not in self.warned_of:
                    self.warned_of.add(note)
                    self.run.note(note)

    def _note_bad(self, bad: dict[str, str]) -> None:
        for where, reason in bad.items():
            if where not in self.state.bad_rows:
                self.state.bad_rows[where] = reason
                self.run.note(f"passed over {where}: {reason}")


# --- building ----------------------------------------------------------------------------------------------


def _build(
    run: Run, recipe: Recipe, plan: Plan, source: ImageSource, pretrained: Pretrained, accelerator: Any
) -> _Training:
    model = pretrained.model.to(accelerator.device).train()
    run.note(choose_trainable(model, recipe.model.train, pretrained.head))
    if unused := freeze_unused(model, pretrained.image_size):
        run.note(f"frozen, as no image reaches them: {', '.join(unused)}")
    if recipe.train.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    drop_path = DropPath(model, recipe.model.drop_path, recipe.train.seed) if recipe.model.drop_path else None
    averaged = AveragedWeights(model, recipe.optim.ema_decay) if recipe.optim.ema_decay else None

    # The scaler of fp16 must see each step's gradients itself to skip the step; fused kernels hide it.
    fused = plan.precision != "fp16" and accelerator.device.type in ("cpu", "cuda")
    groups = parameter_groups(model, recipe.optim, pretrained.head)
    wrapped, optimizer = accelerator.prepare(model, make_optimizer(groups, recipe.optim, fused=fused))

    process = ImageProcess(pretrained.processor, pretrained.image_size)
    mean, std = normalisation(pretrained.processor)
    view = policy(
        recipe.augment,
        fit=recipe.data.fit,
        image_size=pretrained.image_size,
        mean=mean,
        std=std,
        num_classes=len(source.classes),
        seed=recipe.train.seed,
    )
    return _Training(
        run=run,
        recipe=recipe,
        plan=plan,
        source=source,
        accelerator=accelerator,
        model=model,
        wrapped=wrapped,
        optimizer=optimizer,
        averaged=averaged,
        drop_path=drop_path,
        batches=_train_batches(recipe, plan, source, accelerator),
        view=view,
        class_weights=_class_weights(recipe, source, accelerator.device),
        process=process,
        normalisation=(mean, std),
        bgr=takes_bgr(pretrained.processor),
        state=TrainState(
            micro_batch_size=plan.micro_batch_size,
            layout=_layout(plan),
            fingerprint=source.fingerprint,
            recipe=recipe.model_dump(mode="json"),
        ),
        best_weights={},
        warned_of=set(),
    )


def _train_batches(recipe: Recipe, plan: Plan, source: ImageSource, accelerator: Any) -> TrainBatches | StreamBatches:
    layout, pin = plan.layout(accelerator.process_index), accelerator.device.type == "cuda"
    seed, skip_bad = recipe.train.seed, recipe.data.bad_images == "skip"
    if isinstance(source.train, StreamSplit):
        return StreamBatches(
            source.train,
            layout,
            seed=seed,
            stage_size=plan.stage_size,
            skip_bad=skip_bad,
            buffer=recipe.data.shuffle_buffer,
            workers=plan.workers,
            pin=pin,
        )
    assert source.train is not None
    return TrainBatches(
        source.train,
        layout,
        seed=seed,
        stage_size=plan.stage_size,
        skip_bad=skip_bad,
        workers=plan.workers,
        pin=pin,
    )


def _class_weights(recipe: Recipe, source: ImageSource, device: torch.device) -> Tensor | None:
    if recipe.train.class_weights == "none":
        return None
    if not isinstance(source.train, ImageSplit):
        raise TrainError(
            "train.class_weights needs the counts of the classes, which a stream does not tell",
            hint="--set train.class_weights=none, or no --streaming",
        )
    counts = torch.bincount(torch.from_numpy(source.train.labels), minlength=len(source.classes)).double()
    weights = len(source.train) / (len(counts) * counts.clamp(min=1))
    if recipe.train.class_weights == "sqrt":
        weights = weights.sqrt()
    return weights.float().to(device)


def _layout(plan: Plan) -> dict[str, Any]:
    """Return what bit-for-bit exactness depends on besides recipe and data."""
    return {
        "processes": plan.world_size,
        "micro_batch_size": plan.micro_batch_size,
        "device": plan.device.split(":")[0],
        "precision": plan.precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": metadata.version("transformers"),
    }


# --- stopping and timing -----------------------------------------------------------------------------------


@contextmanager
def _stop_requests(time_limit: Duration | None) -> Iterator[Callable[[], str]]:
    """Let SIGTERM, SIGUSR1 and the time limit wait for the end of a step.

    Yields:
        What returns why to stop, empty to go on.
    """
    started = time.monotonic()  # of this session: a resumed run has the whole limit again
    received: list[str] = []

    def request() -> str:
        if received:
            return received[0]
        is_over = time_limit is not None and time.monotonic() - started > time_limit.seconds
        return f"the time limit of {time_limit}" if is_over else ""

    with _on_stop_signals(received.append):
        yield request


@contextmanager
def stop_at_once(run: Run) -> Iterator[None]:
    """Let SIGTERM and SIGUSR1 end what follows the last step, whose checkpoint is complete."""

    def stop(name: str) -> None:
        raise StoppedEarly(
            f"stopped after the last step ({name}); the checkpoint is complete",
            hint=f"vitft finetune --resume {run.folder}",
        )

    with _on_stop_signals(stop):
        yield


@contextmanager
def _on_stop_signals(act: Callable[[str], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # a notebook's worker thread gets no signals
        return
    wanted = [signal.SIGTERM] + ([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])
    before = {number: signal.signal(number, lambda n, _: act(signal.Signals(n).name)) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Speed:
    """Images per second over the last steps, without the first, which warms up, and without pauses."""

    def __init__(self) -> None:
        self._recent: list[tuple[float, int]] = []
        self._total_seconds, self._total_images = 0.0, 0
        self._last = 0.0
        self._is_warm = False

    def begin(self) -> None:
        self._last = self._last or time.perf_counter()

    def end(self, images: int) -> float:
        """Count a step; return the present speed, 0 while it is not known."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        if not self._is_warm:
            self._is_warm = True
            return 0.0
        self._recent = [*self._recent[-19:], (seconds, images)]
        self._total_seconds, self._total_images = self._total_seconds + seconds, self._total_images + images
        return sum(n for _, n in self._recent) / sum(s for s, _ in self._recent)

    def forget(self) -> None:
        """Do not count what happened since the last step: an evaluation, a checkpoint."""
        self._last = 0.0

    @property
    def average(self) -> float:
        return self._total_images / self._total_seconds if self._total_seconds else 0.0
