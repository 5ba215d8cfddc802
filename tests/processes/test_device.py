import os

import pytest
import torch

from vitft.processes import device

CONF, FORMER = "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"


@pytest.fixture
def cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(device.sys, "platform", "linux")
    for name in (CONF, FORMER):
        monkeypatch.setenv(name, "")  # so that what is set here is undone
        monkeypatch.delenv(name)


def said():
    return {name: os.environ[name] for name in (CONF, FORMER) if name in os.environ}


def test_cuda_s_memory_grows_in_segments_and_this_is_said(cuda):
    assert CONF in device._grow_segments("auto")
    assert said() == {CONF: "expandable_segments:True"}


@pytest.mark.parametrize("name", [CONF, FORMER])
def test_what_the_user_has_set_stays(name, cuda, monkeypatch):
    monkeypatch.setenv(name, "max_split_size_mb:64")
    assert device._grow_segments("cuda") == ""
    assert said() == {name: "max_split_size_mb:64"}


def test_a_cpu_has_no_such_allocator(cuda):
    assert device._grow_segments("cpu") == ""
    assert said() == {}


@pytest.mark.parametrize(
    ("capabilities", "expected"), [({"avx512_bf16": True}, "--precision bf16 is faster"), ({"avx2": True}, "no accel")]
)
def test_the_plan_says_where_a_cpu_is_faster_in_bf16(capabilities, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    precision, reason = device._precision("auto", "cpu", {})
    assert precision == "fp32" and expected in reason
