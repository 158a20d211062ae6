#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tern perplexity and tern compare.

usage: test_cli_predictions.py TERN MODELS_DIR [unittest arguments]
"""
import json
import tempfile
from pathlib import Path

from cli_fixture import CommandTest, INT8, main, tern, TERNARY


class Predictions(CommandTest):
    """tern perplexity and tern compare."""
    TEXT = ("the cat sat on the mat and the dog did not; " * 12).encode()

    def measure(self, *args):
        result = tern(*args, "--json", stdin=self.TEXT)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)

    def test_perplexity_has_the_keys_scripts_rely_on_and_counts_each_token_once(self):
        n = json.loads(tern("tokenize", "-m", INT8, "--json", stdin=self.TEXT).stdout)["count"]
        for ctx, stride in (("512", "1"), ("40", "13"), ("64", "62"), ("8", "4")):
            got = self.measure("perplexity", "-m", INT8, "--ctx", ctx, "--stride", stride)
            self.assertEqual(set(got), {"schema", "model", "ctx", "stride", "tokens", "bytes", "perplexity", "loss_nats", "loss_standard_error",
                                        "bits_per_byte", "seconds"})
            self.assertEqual((got["schema"], got["tokens"]), ("tern.perplexity/1", n - 1))  # this model has no BOS: nothing predicts the first
            self.assertAlmostEqual(got["perplexity"], 2.718281828 ** got["loss_nats"], delta=1e-3 * got["perplexity"])
            self.assertAlmostEqual(got["bits_per_byte"], got["loss_nats"] * got["tokens"] / got["bytes"] / 0.693147, delta=1e-4)

    def test_a_window_over_all_of_the_text_predicts_as_a_file_does(self):
        whole = self.measure("perplexity", "-m", INT8, "--ctx", "512", "--stride", "500")
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_bytes(self.TEXT)
            again = self.measure("perplexity", "-m", INT8, "--ctx", "512", "-t", "1", "-f", file.name)
        self.assertEqual(whole["loss_nats"], again["loss_nats"])

    def test_a_model_is_no_distance_from_itself_and_some_from_another(self):
        keys = {"schema", "a", "b", "ctx", "stride", "tokens", "mean_kl_nats", "kl_standard_error", "max_kl_nats", "same_next_token", "perplexity_a",
                "perplexity_b"}
        same, other = self.measure("compare", INT8, INT8, "--ctx", "64"), self.measure("compare", INT8, TERNARY, "--ctx", "64")
        self.assertEqual(set(same), keys)
        self.assertEqual((same["mean_kl_nats"], same["same_next_token"]), (0, 1))
        self.assertGreater(other["mean_kl_nats"], 0.01)
        self.assertLess(other["same_next_token"], 1)
        exact = self.measure("compare", INT8, INT8, "--ctx", "64", "--head", "exact", "--head-b", "exact")
        int8 = self.measure("compare", INT8, INT8, "--ctx", "64", "--head", "exact", "--head-b", "int8")
        int4 = self.measure("compare", INT8, INT8, "--ctx", "64", "--head", "exact", "--head-b", "int4")
        self.assertEqual(exact["mean_kl_nats"], 0)
        self.assertGreater(int8["mean_kl_nats"], 0)
        self.assertGreater(int4["mean_kl_nats"], 4 * int8["mean_kl_nats"])
        self.assertEqual(other["perplexity_a"], self.measure("perplexity", "-m", INT8, "--ctx", "64")["perplexity"])

    def test_an_option_that_changes_nothing_is_one_warning_for_a_file(self):
        for options, named in ((("--act-block", "64"), "--act-block is"), (("--kernel", "mad"), "--kernel is"), (("--act-block-b", "32"), "--act-block is"),
                               (("--kernel", "lut", "--act-block", "32", "--act-block-b", "64"), "--kernel and --act-block are")):
            result = tern("compare", INT8, INT8, "--ctx", "64", "--json", *options, stdin=self.TEXT)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual(json.loads(result.stdout)["schema"], "tern.compare/1")
            self.assertEqual(result.stderr.decode(), f"tern: warning: {INT8} has no ternary matrices, and {named} for those alone\n")


if __name__ == "__main__":
    main()
