import pytest

from tasks.process import host_memory
from tasks.process.host_memory import oom_kills


@pytest.fixture
def host(tmp_path, monkeypatch):
    for name, path in (("CGROUPS", "cgroup"), ("OF_PROCESS", "self"), ("OF_HOST", "vmstat")):
        monkeypatch.setattr(host_memory, name, tmp_path / path)

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_events", ".events").replace("_control", ".oom_control")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def test_the_kills_of_this_process_s_cgroup_count(host):
    host(self="0::/job\n", cgroup__job__memory_events="max 7\noom 3\noom_kill 2\n", vmstat="oom_kill 9\n")
    assert oom_kills() == 2


def test_a_container_sees_its_cgroup_as_the_root(host):
    host(self="4:memory:/somewhere\n", cgroup__memory__memory_control="under_oom 0\noom_kill 3\n")
    assert oom_kills() == 3


def test_else_the_host_s_kills_count(host):
    host(self="4:memory:/\n0::/\n", vmstat="nr_free_pages 1\noom_kill 5\n")
    assert oom_kills() == 5


def test_a_system_that_does_not_say(host):
    assert oom_kills() is None
