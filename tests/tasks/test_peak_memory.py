from types import SimpleNamespace

import psutil
import torch

from vitft.tasks.peak_memory import PeakMemory, peak_memory

CPU = torch.device("cpu")


def test_the_peak_is_told_with_its_share():
    told = str(PeakMemory(3_000_000_000, 80_000_000_000, "the GPU"))
    assert told == "memory: at most 3.0 GB in this process, 4% of the GPU's 80 GB"


def test_a_gpu_counts_what_tensors_took(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=12))
    assert peak_memory(torch.device("cuda")) == PeakMemory(3, 12, "the GPU")


def test_a_process_counts_what_it_had_in_memory_at_once():
    before = peak_memory(CPU).num_bytes
    assert 0 < before < psutil.virtual_memory().total
    torch.ones(before // 4 + 1)
    assert peak_memory(CPU).num_bytes > before
