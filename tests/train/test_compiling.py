"""Which networks are compiled; the compiler itself is faked but in one slow test."""

import itertools

import pytest
import tiny
import torch
from accelerate import Accelerator
from torch import nn

from vitft import finetune
from vitft.train import compiling
from vitft.train.compiling import compiled_if_faster

SHORT = {"train__duration": "2 steps", "train__checkpoint_every": "2 steps"}


class Compiled(nn.Module):
    """What a compiler would make of a network."""

    def __init__(self, network):
        super().__init__()
        self.network, self.calls = network, 0

    def forward(self, images):
        self.calls += 1
        return self.network(images)


class Plan:
    """As much of a plan as is asked for: an hour of training."""

    micro_batch_size, world_size = 4, 1

    class _Phase:
        image_size, gflop = (8, 8), 1.0

    phases = (_Phase(),)

    def work(self):
        return 4 * 3600.0  # images of 1 GFLOP; a micro-batch of four takes a second below


class Run:
    def __init__(self):
        self.notes = []
        self.note = self.notes.append


@pytest.fixture
def gpu():
    """An accelerator that passes for a GPU in what the choice asks."""
    accelerator = Accelerator(cpu=True)

    class OnGpu:
        num_processes, is_main_process, process_index = 1, True, 0
        device = type("Device", (), {"type": "cuda"})()
        autocast = accelerator.autocast

    return OnGpu()


def choose(monkeypatch, gpu, eager, compiled, plan=None, wanted="auto"):
    """Return the choice when a pass takes these seconds, and the notes."""
    monkeypatch.setattr(torch, "compile", Compiled)
    network, run = nn.Linear(1, 1), Run()
    monkeypatch.setattr(compiling, "trial_pass", lambda net, *_: compiled if isinstance(net, Compiled) else eager)
    return compiled_if_faster(network, wanted, plan or Plan(), gpu, run), run.notes


def test_a_long_run_on_a_gpu_takes_what_is_faster(monkeypatch, gpu):
    chosen, notes = choose(monkeypatch, gpu, 1.0, 0.5)
    assert isinstance(chosen, Compiled) and notes == ["the model is compiled: a step is 2.00 times as fast"]
    chosen, notes = choose(monkeypatch, gpu, 1.0, 0.99)
    assert not isinstance(chosen, Compiled) and "1.01 times as fast" in notes[0]


def test_a_short_run_is_not_held_up(monkeypatch, gpu):
    chosen, notes = choose(monkeypatch, gpu, 0.1, 0.01)
    assert not isinstance(chosen, Compiled) and notes == []


def test_a_cpu_compiles_only_when_told_to(monkeypatch):
    assert not isinstance(choose(monkeypatch, Accelerator(cpu=True), 1.0, 0.1)[0], Compiled)
    chosen, notes = choose(monkeypatch, Accelerator(cpu=True), 1.0, 0.1, wanted="on")
    assert isinstance(chosen, Compiled) and notes[0].startswith("the model is compiled (")


def test_without_a_compiler_the_run_goes_on(home, monkeypatch):
    def missing(network):
        raise RuntimeError("No working C++ compiler found\nin $CXX")

    monkeypatch.setattr(torch, "compile", missing)
    run = finetune(tiny.recipe(home, run__name="no-compiler", train__compile="on", **SHORT)).run_dir
    notes = [line["text"] for line in tiny.events(run, "note")]
    said = "the model is not compiled, because that failed: RuntimeError: No working C++ compiler found in $CXX"
    assert said in notes


def test_a_trial_changes_nothing_of_the_run(home, monkeypatch):
    """Batch normalisation counts every pass in training mode, so trials would change the model that is trained."""
    checkpoint = tiny.make_convolutions(home / "convolutions-compiled")
    settings = {
        "model__checkpoint": str(checkpoint), "model__init": "random", "model__drop_path": 0,
        "optim__layer_decay": 1, **SHORT,
    }  # fmt: skip
    plain = finetune(tiny.recipe(home, run__name="eager", **settings)).run_dir
    made = []
    monkeypatch.setattr(torch, "compile", lambda network: made.append(Compiled(network)) or made[-1])
    run = finetune(tiny.recipe(home, run__name="compiled", train__compile="on", **settings)).run_dir
    assert made[0].calls > 6  # the trial's and the steps'
    for name, tensor in tiny.tensors(run).items():
        assert torch.equal(tensor, tiny.tensors(plain)[name]), name


@pytest.mark.slow
def test_the_real_compiler_takes_the_same_steps(home):
    runs = [finetune(tiny.recipe(home, run__name=f"real-{how}", train__compile=how)).run_dir for how in ("off", "on")]
    for one, other in itertools.pairwise(map(tiny.losses, runs)):
        assert one == pytest.approx(other, rel=2e-3)  # Adam magnifies rounding
