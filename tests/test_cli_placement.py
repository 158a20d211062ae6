#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Where the tern command runs its workers: TERN_PIN, masks set by other tools, and cgroups made for the test.

usage: test_cli_placement.py TERN MODELS_DIR [unittest arguments]
"""
import json
import os
import shutil
import subprocess
import sys
import unittest
from contextlib import contextmanager
from pathlib import Path

from cli_fixture import FAILED, TERN, tern  # reads the same arguments
from test_cli_threads import ALLOWED, RunningThreads

PERIOD_US = 100000


def topology(*prefix, **environment):
    env = {k: v for k, v in os.environ.items() if not k.startswith("TERN_")} | {"TERN_TUNE": "off"} | environment
    result = subprocess.run([*prefix, TERN, "info", "--json"], capture_output=True, env=env, timeout=300)
    assert result.returncode == 0, result.stderr
    assert not result.stderr, result.stderr
    return json.loads(result.stdout)["topology"]


def paid_cpus(told):
    """Workers that the quota of this test's own process allows."""
    return max(1, int(told["quota_cpus"] + 0.5)) if told["quota_cpus"] else told["cpus"]


class Pin(unittest.TestCase):
    def test_bound_modes_give_each_worker_a_cpu_that_the_system_confirms(self):
        for pin in ("compact", "cores", "spread", "all"):
            with self.subTest(pin=pin):
                told = topology(TERN_PIN=pin)
                self.assertEqual(told["pin"], "compact" if pin == "cores" else pin)
                self.assertEqual(told["threads"], min(told["cpus" if pin == "all" else "cores"], paid_cpus(told)))
                self.assertEqual(len(set(told["worker_cpus"])), told["threads"])
                self.assertLessEqual(set(told["worker_cpus"]), set(ALLOWED))
                with RunningThreads(told["threads"], "env", f"TERN_PIN={pin}") as running:
                    expected = {f"tern-w{i}": {cpu} for i, cpu in enumerate(told["worker_cpus"])} | {"tern": set(ALLOWED)}
                    expected.pop("tern-w0")  # the caller, which keeps its own mask
                    self.assertEqual(running.settled(expected), expected)

    def test_none_binds_nobody(self):
        told = topology(TERN_PIN="none")
        self.assertEqual((told["pin"], told["pinned"], set(told["worker_cpus"])), ("none", False, {-1}))
        self.assertEqual({w["cpu"] for w in told["workers"]}, {None})
        with RunningThreads(3, "env", "TERN_PIN=none") as running:
            self.assertEqual(running.threads(), {name: set(ALLOWED) for name in ("tern", "tern-w1", "tern-w2")})

    def test_shares_of_all_workers_add_up(self):
        for pin in ("compact", "all", "none"):
            for n in ("1", "3", "20"):
                told = topology(TERN_PIN=pin, TERN_THREADS=n)
                self.assertEqual(told["threads"], int(n))
                self.assertAlmostEqual(sum(w["share"] for w in told["workers"]), 1, places=6)

    def test_a_wrong_mode_is_one_line_that_lists_the_right_ones(self):
        result = tern("info", TERN_PIN="sockets")
        self.assertEqual(result.returncode, FAILED)
        self.assertEqual(result.stderr, b'tern: TERN_PIN = "sockets" is not one of compact, spread, all, none\n')


class Masks(unittest.TestCase):
    def check_alone_on(self, cpu, *prefix):
        told = topology(*prefix)
        self.assertEqual((told["cpus"], told["cores"], told["threads"], told["worker_cpus"]), (1, 1, 1, [cpu]))
        with RunningThreads(1, *prefix) as running:
            self.assertEqual(running.threads(), {"tern": {cpu}})

    def test_taskset(self):
        self.check_alone_on(ALLOWED[-1], "taskset", "-c", str(ALLOWED[-1]))

    @unittest.skipUnless(shutil.which("hwloc-bind"), "skipped: hwloc-bind is not installed (Debian: hwloc)")
    def test_hwloc_bind(self):
        self.check_alone_on(ALLOWED[-1], "hwloc-bind", "--physical", f"pu:{ALLOWED[-1]}", "--")


# ---- cgroups ---------------------------------------------------------------------------------------------------------


def hierarchies(controller):
    """Folders of this process's own cgroup, in hierarchies that have the controller: (folder, is version 2)."""
    paths = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        paths |= {name: path for name in names.split(",")}  # "": version 2
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, filesystem = line.partition(" - ")
        kind, _, options = filesystem.split(" ", 2)
        root, point = mount.split(" ")[3:5]
        v2 = kind == "cgroup2"
        if not v2 and not (kind == "cgroup" and controller in options.split(",")):
            continue
        path = paths.get("" if v2 else controller, "/")
        yield Path(point + (path[len(root):] if root != "/" and path.startswith(root) else path)), v2


@contextmanager
def cgroup(test, controller, settings):
    """A command prefix that runs in a new cgroup. settings(is version 2): {file: text}. Skips where the machine allows none."""
    reasons = [f"no hierarchy has the controller {controller}"]
    for parent, v2 in hierarchies(controller):
        folder = parent / f"tern-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError as error:
            reasons.append(str(error))
            continue
        try:
            for name, text in settings(v2).items():
                (folder / name).write_text(text)
        except OSError as error:
            reasons.append(str(error))
            folder.rmdir()
            continue
        try:
            yield ["sh", "-c", f'echo $$ >"{folder}/cgroup.procs" && exec "$@"', "sh"]
        finally:
            folder.rmdir()
        return
    test.skipTest(f"skipped: this machine allows no cgroup for the test ({'; '.join(reasons)})")


class Cgroups(unittest.TestCase):
    def quota(self, cpus):
        def settings(v2):
            quota = str(int(cpus * PERIOD_US))
            return {"cpu.max": f"{quota} {PERIOD_US}"} if v2 else {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": quota}
        return cgroup(self, "cpu", settings)

    def test_a_quota_of_1_4_cpus_gives_one_worker_unless_more_are_asked_for(self):
        with self.quota(1.4) as prefix:
            told = topology(*prefix)
            self.assertEqual((told["quota_cpus"], told["threads"]), (1.4, 1))
            self.assertEqual(told["pin"], "none" if told["cores"] > 1 else "compact")
            self.assertEqual(topology(*prefix, TERN_THREADS="2")["threads"], 2)
            self.assertEqual(topology(*prefix, TERN_PIN="compact")["pin"], "compact")
            text = subprocess.run([*prefix, TERN, "info"], capture_output=True, timeout=300).stdout.decode()
            self.assertIn("quota     1.4 CPUs of time", text)

    def test_a_quota_of_a_tenth_of_a_cpu_gives_one_worker(self):
        with self.quota(0.1) as prefix:
            told = topology(*prefix)
            self.assertEqual((told["quota_cpus"], told["threads"]), (0.1, 1))

    def test_a_quota_beyond_the_cores_changes_nothing(self):
        if topology()["quota_cpus"]:
            self.skipTest("skipped: this process has a quota already")
        with self.quota(len(ALLOWED) + 1) as prefix:
            told = topology(*prefix)
            self.assertEqual((told["threads"], told["pin"]), (told["cores"], "compact"))

    def test_a_cpuset_is_a_mask(self):
        cpu = ALLOWED[-1]
        with cgroup(self, "cpuset", lambda v2: {"cpuset.cpus": str(cpu), "cpuset.mems": "0"}) as prefix:
            told = topology(*prefix)
            self.assertEqual((told["cpus"], told["threads"], told["worker_cpus"]), (1, 1, [cpu]))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
