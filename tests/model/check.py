#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks the model of the worker pool with SPIN: the right one keeps every property, each broken one fails at its own.

usage: check.py [--only TEXT]
Prints the states of each search. Fails if a search is cut short (depth, memory, time), if a step of the right model is taken in
no configuration, or if a broken model passes or fails at another property than the one named here.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile

MODEL = pathlib.Path(__file__).resolve().parent / "pool.pml"
COMPILER = os.environ.get("CC", "cc")
MEMORY_MB, DEPTH = 2000, 10000
LIVENESS = "every_region_ends"

# What is checked, workers, stages of all regions (see README.md), options.
RIGHT = [
    ("wide and serial stages, two regions", 3, "21030", ""),
    ("many grains", 2, "4040", ""),
    ("epochs wrap; a worker stalls for more than half of them", 2, "2202230", ""),
    ("epochs wrap; a share is not touched for long", 3, "220230", "NO_STEALING"),
    ("two groups", 3, "2030", "TWO_GROUPS"),
    ("two groups; epochs wrap; a publisher stalls for more than half of them", 2, "2202230", "TWO_GROUPS"),
    ("two groups, sleep", 3, "20", "TWO_GROUPS PARK"),
    ("sleep, two regions", 3, "2020", "PARK"),
    ("sleep through serial stages, signals", 2, "2130130", "PARK SPURIOUS=2"),
    ("idle workers", 3, "20", "PARK NO_DESTROY"),
    ("owners are woken for a long stage", 3, "30", "PARK LONG_STAGES"),
    ("owners are woken for long stages, two regions", 3, "21030", "PARK LONG_STAGES NO_STEALING"),
    ("owners are woken through the tree", 4, "40", "PARK LONG_STAGES NO_STEALING NO_DESTROY"),
    ("owners are woken below a worker that owns nothing", 4, "20", "PARK LONG_STAGES NO_STEALING NO_DESTROY FAST_LAST"),
    ("store buffers", 3, "220", "WEAK_MEMORY"),
    ("store buffers, sleep", 2, "21030", "WEAK_MEMORY PARK"),
    ("store buffers, owners are woken", 3, "30", "WEAK_MEMORY PARK LONG_STAGES NO_STEALING"),
    ("every region ends under weak fairness", 2, "21030", "PARK LIVENESS"),
]
# What is broken, workers, stages, options, the property that must fail.
BROKEN = [
    ("a claim does not compare lo and hi", 2, "40", "BREAK_CLAIM_NOT_ATOMIC", "tile_runs_once"),
    ("ranges have no epoch", 3, "2030", "BREAK_NO_TAG", "claim_holds_its_stage_open"),
    ("no second look at open before an older range is claimed", 2, "2202230", "BREAK_NO_SECOND_LOOK", "claim_holds_its_stage_open"),
    ("ranges are not moved up before the wrap", 3, "220230", "NO_STEALING BREAK_NO_REFRESH", "work_never_waits_for_a_sleeper"),
    ("tiles are reported before they run", 2, "220", "BREAK_REPORT_FIRST", "stage_waits_for_all_tiles_before_it"),
    ("the last report is not found in the same step", 2, "20", "BREAK_REPORT_NOT_ATOMIC", "one_advancer"),
    ("finished is reset after the stage is published", 2, "220", "BREAK_LATE_RESET", "last_report_makes_an_advancer"),
    ("whoever completes a group advances", 3, "30", "TWO_GROUPS BREAK_EVERY_GROUP_ADVANCES", "stage_waits_for_all_tiles_before_it"),
    ("a late publisher overwrites a newer open", 3, "220", "TWO_GROUPS BREAK_GROUP_BACKWARDS", "destroy_ends_every_worker"),
    ("a publisher asks the epochs whether a copy of open is older", 2, "2202230", "TWO_GROUPS BREAK_GROUP_FORWARD_ONLY",
     "destroy_ends_every_worker"),
    ("the caller leaves when all tiles have started", 2, "20", "BREAK_CALLER_LEAVES", "region_returns_when_all_is_done"),
    ("no second look at open before parking", 2, "20", "PARK NO_DESTROY BREAK_NO_RECHECK", "parked_caller_is_woken"),
    ("nobody wakes the caller", 2, "20", "PARK BREAK_FORGET_CALLER", "parked_caller_is_woken"),
    ("destroy wakes nobody", 2, "20", "PARK BREAK_STOP_WAKES_NOBODY", "destroy_ends_every_worker"),
    ("workers never park", 2, "20", "PARK NO_DESTROY BREAK_SPIN_FOREVER", "idle_workers_sleep"),
    ("wakers do not count sleepers off", 2, "20", "PARK BREAK_WAKER_FORGETS_COUNT", "sleepers_are_counted"),
    ("parked is set before it is counted", 3, "30", "PARK LONG_STAGES NO_STEALING BREAK_FLAG_BEFORE_COUNT", "sleeping_owner_is_woken"),
    ("the wake tree ends at a worker that owns nothing", 4, "20",
     "PARK LONG_STAGES NO_STEALING NO_DESTROY FAST_LAST BREAK_TREE_CUT", "sleeping_owner_is_woken"),
    ("publish is relaxed: fields after open", 2, "220", "WEAK_MEMORY BREAK_RELAXED_FIELDS", "fields_are_those_of_the_claimed_stage"),
    ("publish is relaxed: reset after open", 2, "220", "WEAK_MEMORY BREAK_RELAXED_RESET", "last_report_makes_an_advancer"),
    ("the load of open is relaxed", 2, "220", "BREAK_RELAXED_LOAD", "fields_are_those_of_the_claimed_stage"),
    ("the report is relaxed", 2, "220", "WEAK_MEMORY BREAK_RELAXED_REPORT", "writes_of_a_stage_reach_the_next"),
    ("parked is not seq_cst", 2, "20", "WEAK_MEMORY PARK NO_DESTROY BREAK_RELAXED_PARK", "parked_caller_is_woken"),
    ("open is not seq_cst", 2, "20", "WEAK_MEMORY PARK NO_DESTROY BREAK_RELAXED_OPEN", "parked_caller_is_woken"),
    ("nobody wakes the caller", 2, "20", "PARK LIVENESS BREAK_FORGET_CALLER", LIVENESS),
]


class Search:
    """One configuration: what SPIN found, and which steps of the model it took."""

    def __init__(self, folder, workers, stages, options, optimize):
        self.liveness = "LIVENESS" in options.split()
        digits = [f"S{i}={digit}" for i, digit in enumerate(stages.ljust(7, "0"))]
        defines = [f"-D{d}" for d in [f"N={workers}", f"REGIONS={stages.count('0')}", *digits, *options.split()]]
        self.run(folder, ["spin", "-a", *defines, str(MODEL)])
        safety = [] if self.liveness else ["-DSAFETY"]
        self.run(folder, [COMPILER, optimize, "-w", *safety, "-DVECTORSZ=1024", f"-DMEMLIM={MEMORY_MB}", "-o", "pan", "pan.c"])
        mode = ["-a", "-f", "-N", LIVENESS] if self.liveness else []
        self.text = self.run(folder, ["./pan", f"-m{DEPTH}", *mode])
        table = self.run(folder, ["./pan", "-d", *mode])
        self.lines = {int(line) for line in re.findall(r"pool\.pml:(\d+) =>", table)}
        self.not_reached = {int(line) for line in re.findall(r"pool\.pml:(\d+), state \d+, \"(?!-end-)", self.text)}

    @staticmethod
    def run(folder, command):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def states(self):
        return int(re.search(r"^ *(\d+) states, stored", self.text, re.M)[1])

    def failed(self):
        """The property that failed; None: none did."""
        if re.search(r"errors: 0$", self.text, re.M):
            return None
        if found := re.search(r"assertion violated \(?(\w+)", self.text):
            return found[1]
        return LIVENESS if self.liveness and "acceptance cycle" in self.text else "an end in no known state"

    def cut_short(self):
        found = re.search(r"max search depth too small|out of memory|reached -DMEMLIM|Search not completed", self.text)
        return found[0] if found else None


def never_reached(searches):
    """Lines of the right model with a step that no search took."""
    reached = set().union(*(search.lines - search.not_reached for search in searches))
    return sorted(set().union(*(search.lines for search in searches)) - reached)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="only searches whose description or options contain this")
    only = parser.parse_args().only
    cases = [(*case, None) for case in RIGHT] + BROKEN
    cases = [case for case in cases if only in " ".join(map(str, case))]
    with tempfile.TemporaryDirectory() as work, concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        def search(i):
            folder = pathlib.Path(work, str(i))
            folder.mkdir()
            _, workers, stages, options, expected = cases[i]
            # What is found within a thousand states is not worth the compiler's time.
            return Search(folder, workers, stages, options, "-O1" if workers > 2 and not expected else "-O0")

        searches = list(pool.map(search, range(len(cases))))
    faults = 0
    for (what, workers, stages, options, expected), found in zip(cases, searches):
        failed = found.failed()
        cut = None if failed else found.cut_short()
        good = failed == expected and not cut
        faults += not good
        print(f"{'ok' if good else 'WRONG':5} {found.states():8} states: {what} ({workers} workers, {stages}"
              f"{options and ' '}{options}): {failed or 'holds'}" + ("" if failed == expected else f", but expected: {expected or 'holds'}")
              + (f"; {cut}" if cut else ""))
    right = [found for found, case in zip(searches, cases) if not case[4]]
    dead = never_reached(right) if not only and right else []
    if dead:
        print(f"WRONG steps of the right model that no search took: {MODEL.name}, lines {', '.join(map(str, dead))}")
    print(f"{len(right)} right and {len(cases) - len(right)} broken models, {sum(found.states() for found in searches)} states")
    return 1 if faults or dead or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
