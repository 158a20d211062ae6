#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tern bench; takes seconds of full memory bandwidth.

usage: test_cli_bench.py TERN MODELS_DIR [unittest arguments]
"""
import json

from cli_fixture import CommandTest, FAILED, main, STAGES, tern


class Bench(CommandTest):
    """Takes seconds of full memory bandwidth: a ctest of its own, with the label slow."""

    def test_quick_json_has_the_keys_scripts_rely_on_and_every_figure(self):
        result = tern("bench", "--quick", "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        out = json.loads(result.stdout)
        self.assertEqual((out["schema"], out["complete"]), ("tern.bench/1", True))
        for key in ("threads", "dram_gbps", "l3_gbps", "vnni_gops"):
            self.assertGreater(out["roofline"][key], 0, key)
        self.assertEqual({r["residency"] for r in out["results"]}, {"dram", "hot"})
        self.assertEqual({r["op"] for r in out["results"]}, {"lut_gemm", "mad_gemm"})
        for result in out["results"]:
            self.assertIn(result["bound"], ("dram", "l3", "int8"))
            self.assertIsInstance(result["variant"], str)
            for key in ("m", "n", "k", "threads", "bits_per_weight", "gops", "gmacs", "gbps", "mac_per_cycle", "fraction"):
                self.assertGreater(result[key], 0, (key, result))
            self.assertTrue(result["symbol"].startswith("tern_" + result["op"]), result)
            self.check_workers(result)

    def check_workers(self, result):
        """One object for each worker; nobody stole more than they ran."""
        self.assertEqual(len(result["workers"]), result["threads"])
        for worker in result["workers"]:
            self.assertEqual(set(worker), {"tiles", "stolen", "regions", "spin_ns", "parks", "wakes"})
            self.assertLessEqual(worker["stolen"], worker["tiles"])
        self.assertGreater(sum(worker["tiles"] for worker in result["workers"]), 0)

    def test_filters_leave_only_what_they_name(self):
        result = tern("bench", "--op", "mad_gemm", "--shape", "3x7", "--shape", "65x256", "--m", "1,3", "--block", "0,64",
                      "--residency", "hot", "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        cases = {(r["op"], r["n"], r["m"], r["scale_block"], r["residency"]) for r in json.loads(result.stdout)["results"]}
        self.assertEqual(cases, {("mad_gemm", n, m, block, "hot") for n in (3, 65) for m in (1, 3) for block in (0, 64)})

    def test_filters_that_leave_nothing_are_an_error_with_the_remedy(self):
        self.check(FAILED, "bench", "--quick", "--op", "int6", says=["--quick"])
        self.check(FAILED, "bench", "--op", "rmsnorm", "--shape", "65x256", says=["--op"])

    def test_every_stage_that_multiplies_weights_is_measured(self):
        result = tern("bench", "--shape", "65x256", "--m", "1", "--block", "0", "--residency", "hot", "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        only_of_a_head = {"split_gemm_b32"}  # no weight of its own: tools/compare_engines.py times whole models with --head screened
        self.assertEqual({r["op"] for r in json.loads(result.stdout)["results"]}, {stage for stage in STAGES if "_gemm" in stage} - only_of_a_head)


if __name__ == "__main__":
    main()
