import psutil

from vitft import machine


def test_the_memory_of_a_container_counts_if_it_is_less(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    whole = psutil.virtual_memory().total
    (tmp_path / "memory.current").write_text("400\n")
    for unlimited in ("max", str(2**62)):
        (tmp_path / "memory.max").write_text(f"{unlimited}\n")
        assert machine.all_memory() == (whole, "this machine")
        assert 1000 < machine.free_memory() <= whole
    (tmp_path / "memory.max").write_text("1000\n")
    assert machine.all_memory() == (1000, "this container")
    assert machine.free_memory() == 600
    (tmp_path / "memory.current").write_text("1200\n")  # as a kernel may let it grow for a moment
    assert machine.free_memory() == 0
