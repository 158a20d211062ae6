#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The tern command with any number of workers, on any CPUs that it is given.

usage: test_cli_threads.py TERN MODELS_DIR [unittest arguments]
"""
import json
import os
import subprocess
import sys
import time
import unittest
from pathlib import Path

from cli_fixture import INT8, LONG, TERN, TERNARY, tern  # reads the same arguments

MANY = 16
ALLOWED = sorted(os.sched_getaffinity(0))
DEADLINE_S = 60


def text(*args):
    result = tern("generate", "-p", "hello world", *args)
    assert result.returncode == 0, result.stderr
    return result.stdout


def on_cpus(cpus, *args):
    """Runs the command in a process that may use only these CPUs, as `taskset` does."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("TERN_")} | {"TERN_TUNE": "off"}
    result = subprocess.run([TERN, *args], capture_output=True, env=env, timeout=300, preexec_fn=lambda: os.sched_setaffinity(0, cpus))
    assert result.returncode == 0, result.stderr
    return result.stdout


class RunningThreads:
    """A generating command, all of whose threads have started."""

    def __init__(self, n_workers, *prefix):
        command = [*prefix, TERN, "generate", "-m", LONG, "-p", "hello", "-n", "30000", "-t", str(n_workers)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.n_workers = n_workers

    def __enter__(self):
        self.process.stdout.read(1)  # it generates
        tasks = Path(f"/proc/{self.process.pid}/task")
        end = time.monotonic() + DEADLINE_S
        while len(list(tasks.iterdir())) < self.n_workers and time.monotonic() < end:
            time.sleep(0.01)
        return self

    def threads(self):
        """comm -> set of CPUs that it may use."""
        return {(t / "comm").read_text().strip(): allowed_cpus(t / "status") for t in Path(f"/proc/{self.process.pid}/task").iterdir()}

    def settled(self, expected):
        """The threads, as soon as they are as expected: in a region that begins where a worker runs, the caller is held off that CPU."""
        end = time.monotonic() + DEADLINE_S
        while (found := self.threads()) != expected and time.monotonic() < end:
            time.sleep(0.01)
        return found

    def __exit__(self, *_):
        self.process.kill()
        self.process.stdout.close()
        self.process.wait()


def allowed_cpus(status):
    listed = next(line for line in status.read_text().splitlines() if line.startswith("Cpus_allowed_list:")).split()[1]
    cpus = set()
    for part in listed.split(","):
        first, _, last = part.partition("-")
        cpus |= set(range(int(first), int(last or first) + 1))
    return cpus


class Workers(unittest.TestCase):
    def test_one_two_and_sixteen_workers_write_the_same_tokens(self):
        for model in (TERNARY, INT8):
            for sampling in ([], ["--temp", "1.5", "--seed", "7"]):
                with self.subTest(model=model, sampling=sampling):
                    texts = {text("-m", model, "-n", "60", "-t", str(n), *sampling) for n in (1, 2, MANY)}
                    self.assertEqual(len(texts), 1)
                    self.assertGreater(len(texts.pop()), 60)

    def test_as_many_workers_run_as_were_asked_for(self):
        for n in (1, MANY):
            out = json.loads(tern("generate", "-m", TERNARY, "-p", "x", "-n", "4", "--json", "-t", str(n)).stdout)
            self.assertEqual(out["threads"], n)

    def test_workers_are_named_for_top(self):
        with RunningThreads(MANY) as running:
            self.assertEqual(set(running.threads()), {"tern"} | {f"tern-w{i}" for i in range(1, MANY)})

    def test_one_worker_is_the_command_s_own_thread(self):
        with RunningThreads(1) as running:
            self.assertEqual(set(running.threads()), {"tern"})


class Cpus(unittest.TestCase):
    def test_on_one_cpu_there_is_one_worker_and_the_text_is_the_same(self):
        for cpu in (ALLOWED[0], ALLOWED[-1]):
            topology = json.loads(on_cpus({cpu}, "info", "--json"))["topology"]
            self.assertEqual((topology["cores"], topology["threads"]), (1, 1))
            for extra in ([], ["-t", "2"], ["-t", str(MANY)]):
                args = ["generate", "-m", TERNARY, "-p", "hello world", "-n", "40", *extra]
                self.assertEqual(on_cpus({cpu}, *args), text("-m", TERNARY, "-n", "40"))

    def test_no_thread_leaves_the_cpus_that_the_process_was_given(self):
        cpu = ALLOWED[-1]
        with RunningThreads(3, "taskset", "-c", str(cpu)) as running:
            self.assertEqual(running.threads(), {name: {cpu} for name in ("tern", "tern-w1", "tern-w2")})

    @unittest.skipIf(len(ALLOWED) < 2, "one CPU only")
    def test_workers_are_bound_to_a_cpu_each_and_the_caller_keeps_its_own(self):
        with RunningThreads(2) as running:
            worker = running.threads()["tern-w1"]
            self.assertEqual(len(worker), 1)
            expected = {"tern": set(ALLOWED), "tern-w1": worker}
            self.assertEqual(running.settled(expected), expected)


class Quota(unittest.TestCase):
    """The command in a cgroup of its own with a quota of CPU time, where this user may make one."""

    PERIOD_US = 100000

    def cgroup(self, cpus):
        groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        v1 = next((path for _, controllers, path in groups if "cpu" in controllers.split(",")), None)
        v2 = next((path for number, _, path in groups if number == "0"), "/")
        parent = Path("/sys/fs/cgroup/cpu" if v1 else "/sys/fs/cgroup", (v1 or v2).lstrip("/"))
        folder = parent / f"tern-test-{os.getpid()}"
        quota = int(cpus * self.PERIOD_US)
        try:
            folder.mkdir()
            self.addCleanup(folder.rmdir)
            if v1:
                (folder / "cpu.cfs_period_us").write_text(str(self.PERIOD_US))
                (folder / "cpu.cfs_quota_us").write_text(str(quota))
            else:
                (folder / "cpu.max").write_text(f"{quota} {self.PERIOD_US}")
        except OSError as error:
            self.skipTest(f"no cgroup with a quota can be made here: {error}")
        return folder

    def run_in(self, folder, *args):
        env = {k: v for k, v in os.environ.items() if not k.startswith("TERN_")} | {"TERN_TUNE": "off"}
        result = subprocess.run([TERN, *args], capture_output=True, env=env, timeout=300,
                                preexec_fn=lambda: (folder / "cgroup.procs").write_text(str(os.getpid())))
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def test_there_are_as_many_workers_as_the_quota_pays_for(self):
        folder = self.cgroup(cpus=1)
        topology = json.loads(self.run_in(folder, "info", "--json"))["topology"]
        self.assertEqual((topology["threads"], topology["quota_cpus"]), (1, 1.0))
        self.assertEqual(json.loads(self.run_in(folder, "info", "--json", "-t", "2"))["topology"]["threads"], 2)  # asked for

    def test_throttled_workers_write_the_same_tokens(self):
        folder = self.cgroup(cpus=0.5)
        for extra in ([], ["-t", str(MANY)]):
            args = ["-m", TERNARY, "-p", "hello world", "-n", "20", *extra]
            self.assertEqual(self.run_in(folder, "generate", *args), tern("generate", *args).stdout)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
