#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tern chat, run as a user runs it: on a terminal, and with turns from a pipe.

usage: test_cli_chat.py TERN MODELS [unittest arguments]
"""
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import unittest
import fcntl
from pathlib import Path

TERN, MODELS = sys.argv[1], Path(sys.argv[2])
TINY, LONG = str(MODELS / "tiny-tq2_0.gguf"), str(MODELS / "tiny-long.gguf")
INTERRUPTED, PATIENCE_S = 130, 20
CTRL_C, CTRL_D = b"\x03", b"\x04"
ESCAPES = re.compile(rb"\x1b(\[[0-9;?]*[A-Za-z]|[=>]|\([A-Z])")


def pipe(*args, stdin):
    return subprocess.run([TERN, "chat", *args], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=PATIENCE_S)


class Terminal:
    """tern chat on a pseudo-terminal."""
    def __init__(self, *args):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm", LC_ALL="C.UTF-8")
            os.execv(TERN, [TERN, "chat", *args])
        self.seen = b""
        self.resize(30, 400)  # long lines, which are not broken

    def resize(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self):
        """What comes next; False at the end."""
        if not select.select([self.fd], [], [], PATIENCE_S)[0]:
            raise TimeoutError(self.seen)
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:
            data = b""
        self.seen += data
        return bool(data)

    def wait_for(self, text):
        """Until the text was shown; it and all before it is forgotten."""
        while text not in ESCAPES.sub(b"", self.seen):
            if not self.read():
                raise EOFError((text, self.seen))
        clean = ESCAPES.sub(b"", self.seen)
        self.seen = clean[clean.index(text) + len(text):]
        return clean

    def send(self, data):
        os.write(self.fd, data)

    def end(self):
        while self.read():
            pass
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return status


class OnATerminal(unittest.TestCase):
    def open(self, *args):
        try:
            terminal = Terminal(*args)
        except OSError as error:
            self.skipTest(str(error))  # a chroot or container without /dev/ptmx
        terminal.wait_for(b"/help lists the commands")
        terminal.wait_for(b"> ")
        return terminal

    def test_ctrl_c_stops_the_answer_and_not_the_program(self):
        t = self.open("-m", LONG, "--ctx", "30000")
        for _ in range(2):
            t.send(b"hello\n")
            t.wait_for(b"hello\r\n")
            t.read()  # the answer has begun, or will
            t.send(CTRL_C)
            t.wait_for(b"[stopped")
            t.wait_for(b"> ")
        t.send(b"/quit\n")
        self.assertEqual(t.end(), 0)

    def test_ctrl_c_on_a_line_drops_the_line(self):
        t = self.open("-m", TINY, "-n", "5")
        t.send(b"/quit")
        t.wait_for(b"/quit")
        t.send(CTRL_C)
        t.wait_for(b"Ctrl-D or /quit")
        t.wait_for(b"> ")
        t.send(b"\n")  # what was typed is gone: this line is empty, and nothing is said
        t.wait_for(b"> ")
        t.send(CTRL_D)
        self.assertEqual(t.end(), 0)

    def test_pasted_lines_are_one_message(self):
        t = self.open("-m", TINY, "-n", "3")
        t.send(b"\x1b[200~one\rtwo\tthree\n\x1b[201~four")
        shown = t.wait_for(b"four")
        self.assertIn("one\u240atwo\u2409three\u240afour".encode(), shown)
        t.send(b"\n")
        t.wait_for(b"> ")
        t.send(CTRL_D)
        self.assertEqual(t.end(), 0)

    def test_a_lone_escape_key_and_half_a_paste_mark_do_no_harm(self):
        t = self.open("-m", TINY, "-n", "3")
        t.send(b"\x1b")
        time.sleep(0.2)
        t.send(b"\x1b[20")
        time.sleep(0.2)
        t.send(CTRL_C)
        t.wait_for(b"Ctrl-D or /quit")
        t.wait_for(b"> ")
        t.send(CTRL_D)
        self.assertEqual(t.end(), 0)

    def test_a_resize_keeps_the_line(self):
        t = self.open("-m", TINY, "-n", "3")
        t.send(b"/he")
        t.wait_for(b"/he")
        for columns in (20, 7, 100):
            t.resize(24, columns)
            t.wait_for(b"\r> /he")  # in place of the line, not behind it
        t.send(b"lp\n")
        t.wait_for(b"/reset")
        t.wait_for(b"> ")
        t.send(CTRL_D)
        self.assertEqual(t.end(), 0)

    def test_letters_beyond_ascii_can_be_typed_and_deleted(self):
        t = self.open("-m", TINY, "-n", "3")
        t.send("/ü日".encode())
        t.wait_for("日".encode())
        t.send(b"\x7f\n")
        t.wait_for("tern: /ü: unknown command".encode())
        t.wait_for(b"> ")
        t.send(CTRL_D)
        self.assertEqual(t.end(), 0)

    def test_a_full_context_is_told_and_reset(self):
        t = self.open("-m", TINY, "--ctx", "40", "-n", "1000")
        t.send(b"/system x\nhi\n")
        t.wait_for(b"the context of 40 tokens is full")
        t.wait_for(b"> ")
        t.send(b"again\n")
        t.wait_for(b"0 of the context's 40 are left; /reset")
        t.send(b"/reset\n")
        t.wait_for(b"[the conversation begins anew]")
        t.send(b"hi\n")
        t.wait_for(b"the context of 40 tokens is full")
        t.wait_for(b"> ")
        t.send(CTRL_D)
        self.assertEqual(t.end(), 0)


class FromAPipe(unittest.TestCase):
    def turns(self, *args, stdin):
        result = pipe("-m", TINY, "--json", "-n", "8", *args, stdin=stdin)
        self.assertEqual(result.returncode, 0, result.stderr)
        objects, text, decoder = [], result.stdout.decode(), json.JSONDecoder()
        while text.strip():
            value, end = decoder.raw_decode(text.lstrip())
            objects.append(value)
            text = text.lstrip()[end:]
        return objects

    def test_each_line_is_a_turn_and_only_new_tokens_are_read(self):
        turns = self.turns(stdin=b"hello there\n\n   \nhello there\r\nlast without newline")
        self.assertEqual([t["schema"] for t in turns], ["tern.chat/1"] * 3)
        held = 0
        for turn in turns:
            self.assertEqual((turn["stop"], turn["generated_tokens"]), ("length", 8))
            self.assertEqual(turn["context_tokens"], held + turn["prompt_tokens"] + 8)
            held = turn["context_tokens"]

    def test_a_conversation_in_turns_is_the_text_decoded_at_once(self):
        """The second answer depends on the first turn, and --draft changes nothing."""
        plain = self.turns(stdin=b"the cat the cat\nthe cat\n")
        self.assertEqual([t["text"] for t in self.turns("--draft", "8", stdin=b"the cat the cat\nthe cat\n")], [t["text"] for t in plain])
        fresh = self.turns(stdin=b"the cat the cat\n/reset \r\nthe cat the cat\n")
        self.assertEqual(fresh[0]["text"], fresh[1]["text"])
        self.assertEqual(fresh[0]["prompt_tokens"], fresh[1]["prompt_tokens"])

    def test_with_context_shift_the_oldest_turns_leave_and_the_system_message_stays(self):
        said, room = b"hello there\n", 100
        args = ("--ctx", str(room), "--system", "be brief", "--context-shift")
        first, second = (t["prompt_tokens"] for t in self.turns(*args, stdin=2 * said))
        shifts = held = 0
        for turn in self.turns(*args, stdin=14 * said):
            self.assertEqual((turn["stop"], turn["generated_tokens"]), ("length", 8))
            shifts += turn["context_tokens"] < held
            held = turn["context_tokens"]
            self.assertLessEqual(held, room)
            self.assertEqual((held - first - 8) % (second + 8), 0)  # whole turns, the oldest with the system message
        self.assertGreater(shifts, 0)
        result = pipe("-m", TINY, "--json", "-n", "8", *args[:4], stdin=14 * said)
        self.assertIn(b"--context-shift", result.stderr)
        self.assertNotEqual(result.returncode, 0)

    def test_with_context_shift_an_answer_goes_on_as_long_as_there_are_older_turns(self):
        turns = self.turns("--ctx", "100", "--context-shift", "-n", "60", stdin=b"hello\nhello\nhello\n")
        self.assertEqual([(t["stop"], t["generated_tokens"]) for t in turns], [("length", 60)] * 3)
        result = pipe("-m", TINY, "--json", "--ctx", "100", "--context-shift", stdin=b"hello\nhello\n")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stdout.count(b'"stop": "context"'), 2)  # the only turn is not dropped

    def test_a_message_that_can_never_have_room_costs_no_turn(self):
        result = pipe("-m", TINY, "-n", "8", "--ctx", "100", "--context-shift", stdin=b"hello\n" + b"xyz " * 300 + b"\n")
        self.assertEqual(result.returncode, 1)
        self.assertIn(b" of the context's 100 are left", result.stderr)
        self.assertNotIn(b"100 of the context's 100", result.stderr)

    def test_generate_and_chat_answer_alike(self):
        turn = self.turns("--system", "Be a bird.", stdin=b"What do you see?\n")[0]
        args = ["generate", "-m", TINY, "--chat", "--system", "Be a bird.", "-p", "What do you see?", "-n", "8", "--json"]
        generated = json.loads(subprocess.run([TERN, *args], stdout=subprocess.PIPE, timeout=PATIENCE_S).stdout)
        for key in ("text", "prompt_tokens", "generated_tokens", "stop"):
            self.assertEqual(turn[key], generated[key])

    def test_markers_that_people_type_are_text(self):
        plain, marked = self.turns(stdin=b"a\n/reset\n<|im_end|>\n")
        self.assertGreater(marked["prompt_tokens"], plain["prompt_tokens"] + 4)

    def test_lines_that_end_in_a_backslash_go_on(self):
        self.assertEqual(len(self.turns(stdin=b"one\\\ntwo\\\nthree\nfour\n")), 2)

    def test_what_cannot_be_done_is_an_error(self):
        for args, stdin, says in ((["--format", "alpaca"], b"hi\n", b"--format alpaca"), (["--format", "phi3"], b"hi\n", b"--format phi3"),
                                  ([], b"/what\n", b"/what: unknown command"), (["--ctx", "1000000"], b"", b"--ctx"),
                                  (["--ctx", "12"], b"hello\n", b"12 are left")):
            result = pipe("-m", TINY, *args, stdin=stdin)
            self.assertEqual((result.returncode, result.stderr.count(b"\n")), (1, 1), result.stderr)
            self.assertIn(says, result.stderr)
        self.assertEqual(subprocess.run([TERN, "chat"], stderr=subprocess.PIPE).returncode, 2)

    def test_ctrl_c_ends_a_chat_without_a_terminal(self):
        with subprocess.Popen([TERN, "chat", "-m", LONG, "--ctx", "30000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdin.write(b"hello\nhello\n")
            process.stdin.flush()
            self.assertTrue(process.stdout.read(1))
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(PATIENCE_S), INTERRUPTED)

    def test_help_tells_the_options(self):
        result = subprocess.run([TERN, "chat", "--help"], stdout=subprocess.PIPE)
        self.assertEqual(result.returncode, 0)
        for part in (b"Usage: tern chat", b"--system", b"--format", b"--temp", b"Ctrl-C", b"TERN_THREADS"):
            self.assertIn(part, result.stdout)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
