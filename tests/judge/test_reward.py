"""The judge: what it calls correct, that it cannot hang, and that it leaves no process behind."""

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from math_verify import parse, verify
from scripts import load_script

from recipe.judge import child as judge_child
from recipe.judge import pool as judge_pool
from recipe.judge import reward as judge
from recipe.judge.answer import normalise
from recipe.judge.equivalence import Equivalence
from recipe.judge.reward import compute_score, extract_answer

HANGS = r"\boxed{9^{9^{9^{9}}}}"  # one big-integer power in C: no Python signal handler ever runs
GROWS = r"\left(1+\sqrt{2}\right)^{1000000}"  # about 400 MB of address space a second
# an answer that only math-verify can compare with its truth
SUM, SUMMED = r"\sum_{k=1}^n k", r"\boxed{\frac{n(n+1)}{2}}"
FILE = Path(judge.__file__)
ROOT = FILE.parents[2]


def correct(response, gold, **kwargs):
    return compute_score("any", response, gold, **kwargs)["acc"]


def children(pid=None):
    processes = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if any("judge/child.py" in part for part in process.cmdline()):
                processes.append(process)
        except psutil.NoSuchProcess:
            pass
    return processes


def wait_until(holds, seconds):
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


@pytest.fixture(autouse=True)
def nothing_left_behind():
    yield
    judge_pool.close()
    assert wait_until(lambda: not children(), 5), children()


# ------------------------------------------------------------------ which answer is judged


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"so \boxed{72}", "72"),
        (r"first \boxed{5}, no: \boxed{6}", "6"),
        (r"\boxed{6} and then #### 5 and 7", "6"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed {5}", "5"),
        (r"\fbox{5}", "5"),
        (r"\\boxed{5}", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{5}, with 1 number in \boxed{ }.", "5"),
        (r"\boxed{5} and, cut off, \boxed{6", "5"),
        (r"\boxed{5} } and more } closing", "5"),
        (r"{ never closed \boxed{5}", "5"),
        ("#### 1,234\nThat is all, 7 times.", "1,234"),
        ("#### 5\n#### 6", "6"),
        ("#### \n the answer is 18", "18"),
        ("it is 17, no, 18.", "18"),
        ("12+34=46", "46"),
        ("= -3", "-3"),
        ("x = 5-3", ""),  # the end of a formula that is not read
        ("costs $5.00.", "$5.00"),
        ("1,234,567 of 1,2345", ""),
        ("half, so 1/2 of it", "1/2"),
        ("a share of 50%", "50%"),
        (r"a share of 50\%", r"50\%"),
        ("only .5 litres", ".5"),
        (r"thus $2\sqrt{3}$.", r"2\sqrt{3}"),
        (r"thus \(x+1\)", "x+1"),
        ("thus \\[ x\n+1 \\]", "x\n+1"),
        (r"thus -\frac{1}{2} of it", r"-\frac{1}{2}"),
        ("it costs $5 and then $3 more", "$3"),
        ("no answer at all", ""),
        ("", ""),
    ],
)
def test_the_answer_of_a_response(response, answer):
    assert extract_answer(response) == answer


def test_the_whole_response_is_read_up_to_a_million_characters():
    assert extract_answer(r"\boxed{7}" + " and so on" * 50_000) == "7"
    assert extract_answer(r"\boxed{7}" + " " * judge.MAX_RESPONSE) == ""
    assert extract_answer(" " * judge.MAX_RESPONSE + r"\boxed{7}") == "7"


def test_boxed_only_wants_a_box():
    assert correct("#### 5", "5")
    assert not correct("#### 5", "5", boxed_only=True)
    assert correct(r"\boxed{5}", "5", boxed_only=True)


@pytest.mark.parametrize(
    "unit", [r"\boxed{", "{", "}", "$", "$5", r"\(", r"\frac{", "1,", "1/", "#", "-", "9", "9 "]
)
def test_reading_takes_linear_time(unit):
    text = unit * (300_000 // len(unit))
    start = time.process_time()
    extract_answer(text)
    assert time.process_time() - start < 5  # 0.05 to 0.6 s; a quadratic pass would take minutes


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("1,234", "1234"),
        ("1{,}234,567", "1234567"),
        (r"10,\!000", "10000"),
        (r"1\,234", "1234"),
        ("1 234", "1234"),
        ("$5.00", "5"),
        (r"\$5.50", "5.5"),
        ("-$5", "-5"),
        ("€5", "5"),
        ("$5$", "5"),
        ("**18**", "18"),
        ("18.", "18"),
        ("-0.00", "0"),
        ("+3", "3"),
        ("- 3", "-3"),
        ("−3", "-3"),
        ("007", "7"),
        (".5", "0.5"),
        (" 5 ", "5"),
        ("12,34", "12,34"),  # two numbers
        ("1,2,3", "1,2,3"),
        ("5 6", "5 6"),
        ("50%", "50%"),
        ("1/2", "1/2"),
        (r"\frac12.", r"\frac12"),
        ("x", "x"),
        (".", ""),
        ("-", "-"),
        ("٣", "٣"),
        ("", ""),
    ],
)
def test_normalise(answer, plain):
    assert normalise(answer) == plain


# ------------------------------------------------------------------ correct and incorrect


@pytest.mark.parametrize(
    ("gold", "response", "verdict"),
    [
        ("1234", "#### 1,234", True),
        ("5", r"\boxed{\$5.00}", True),
        ("-3", r"\boxed{3}", False),
        ("1/2", r"\boxed{\frac12}", True),
        ("1/2", r"\boxed{0.5}", True),
        ("1/3", r"\boxed{0.33}", False),
        ("50", r"\boxed{50\%}", True),
        ("0.5", "it is 50%", True),
        (r"50\%", r"\boxed{50}", True),
        ("5", r"\boxed{50\%}", False),
        ("18", r"\boxed{18 \text{ dollars}}", True),
        ("5", r"\boxed{x = 5}", True),
        ("5", r"\boxed{5} or \boxed{6}", False),
        ("5", r"\boxed{5 \text{ or } 6}", False),
        ("5", r"\boxed{5, 6}", False),
        ("x+1", r"\boxed{1 + x}", True),
        (r"2\sqrt{3}", r"thus $\sqrt{12}$", True),
        ("(1,2)", r"\boxed{(1, 2)}", True),
        (r"\text{Monday}", r"\boxed{Monday}", True),
        (r"\text{Monday}", r"\boxed{\text{Tuesday}}", False),
        ("5", r"\boxed{2\sqrt{}", False),
        # what math-verify ignores
        ("5", r"\boxed{\neq 5}", False),
        ("5", r"\boxed{\text{≠} 5}", False),
        (r"\neq 5", r"\boxed{\ne 5}", True),
        (r"\neq 5", r"\boxed{5}", False),
        (r"\neq 5", r"\boxed{\neq 5}", True),
        ("5", r"\boxed{5 \bmod 5}", False),
        ("5", r"\boxed{5_{8}}", False),
        ("25_8", r"\boxed{25_7}", False),
        ("25_8", r"\boxed{25_{8}}", True),
        ("25_8", r"\boxed{25}", True),
        ("5", r"\boxed{5_{10}}", True),
        ("5", r"\boxed{4 = 5}", False),
        ("5", r"\boxed{5 = 5.0}", True),
        ("0.5", r"\boxed{1/2 = 0.5}", True),
        ("x_1+5", r"\boxed{5+x_1}", True),
        ("62.5%", r"\boxed{$62.5%$}", True),
        ("62.5%", r"\boxed{$$62.5\%$$}", True),
        (5, r"\boxed{5}", True),
        ("5", "", False),
    ],
)
def test_verdicts(gold, response, verdict):
    result = compute_score("any", response, gold)
    assert result["acc"] is verdict
    assert result["score"] == float(verdict)
    assert not result["judge_timed_out"]


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        (r"\boxed{4.5 \times 10^{33}}", True),
        (r"\boxed{4.5e33}", True),
        (r"\boxed{45 \cdot 10^{32}}", True),
        (r"\boxed{4.5 \times 10^{32}}", False),
        (r"\boxed{\text{none}}", False),
        ("no answer", False),
    ],
)
def test_a_list_of_accepted_answers_accepts_each(response, verdict):
    score = compute_score("any", response, json.dumps(["4.5e33", r"4.5 \times 10^{33}"]))
    assert (score["acc"], score["judge_timed_out"]) == (verdict, False)


def test_one_accepted_answer_without_a_verdict_does_not_hide_the_others(monkeypatch):
    verdicts = {"a": None, "b": True}
    monkeypatch.setattr(Equivalence, "accepts", lambda self, gold, answer: verdicts[gold.key])
    score = compute_score("any", r"\boxed{c}", '["a", "b"]')
    assert (score["acc"], score["judge_timed_out"]) == (True, False)
    score = compute_score("any", r"\boxed{c}", '["a", "a"]')
    assert (score["acc"], score["judge_timed_out"]) == (False, True)


@pytest.mark.parametrize("gold", ['["a"', '["a", 1]', '["a", "b"] or c'])
def test_what_only_begins_like_a_list_of_answers_is_refused(gold):
    with pytest.raises(ValueError, match="begins like a list of accepted answers"):
        compute_score("any", r"\boxed{a}", gold)


def test_what_cannot_be_parsed_or_is_too_long_has_no_pred():
    long = "1+" * judge.MAX_ANSWER + "1"
    result = compute_score("any", f"\\boxed{{{long}}}", "5")
    assert result == {"score": 0.0, "acc": False, "pred": "", "judge_timed_out": False}
    assert not children()  # no process was needed
    assert compute_score("any", r"\boxed{(((()}", "5")["pred"] == ""
    assert compute_score("any", r"\boxed{x^2}", "5")["pred"] == "x^2"


def test_plain_numbers_need_no_process():
    for response, gold in [(r"\boxed{1,234}", "1234"), ("#### 7", "8"), ("0.25", "0.75")]:
        compute_score("synthetic/addition", response, gold)
    assert not children()


def in_process(gold, answer):
    """math-verify here, in the main thread: what the fast path must agree with."""
    gold, answer = (parse(text, parsing_timeout=None) for text in (gold, answer))
    return verify(gold, answer, timeout_seconds=None)


DIGITS = st.integers(0, 10**7).map(str) | st.integers(0, 12).map(str)
SIGN = st.sampled_from(["", "", "", "-", "+"])
FRACTION = st.sampled_from(["", "", ".", ".0", ".00", ".5", ".50", ".25", ".000001", ".0000004"])
DECIMALS = st.from_regex(r"\.[0-9]{1,8}", fullmatch=True)
NUMBERS = st.builds("{}{}{}".format, SIGN, DIGITS, FRACTION | DECIMALS)
SPELLINGS = [  # which math-verify itself reads as the number
    lambda n: n,
    lambda n: f"${n}",
    lambda n: f"\\${n}",
    lambda n: f"${n}$",
    lambda n: f" {n} ",
    lambda n: f"{Decimal(n.rstrip('.')):,f}",
    lambda n: f"{Decimal(n.rstrip('.')):,f}".replace(",", "{,}"),
]


@st.composite
def pairs(draw):
    """Two spelled numbers, often equal or close."""
    gold = draw(NUMBERS)
    near = [gold, gold + "0" if "." in gold else gold + ".0", gold.lstrip("+-"), gold + "1"]
    answer = draw(NUMBERS | st.sampled_from(near))
    spell = st.sampled_from(SPELLINGS)
    return draw(spell)(gold), draw(spell)(answer)


@settings(max_examples=500, deadline=None)
@given(pairs())
def test_plain_numbers_are_equal_to_six_places_and_whole_ones_exactly(pair):
    """By exact arithmetic; and as math-verify has it, where the two rules do not part."""
    gold, answer = (Decimal(normalise(text)) for text in pair)
    scale = max(abs(gold), abs(answer))
    whole = gold == gold.to_integral() or answer == answer.to_integral()
    close = abs(gold - answer) <= Decimal("1e-6") * min(1, scale)
    verdict = compute_score("any", f"\\boxed{{{pair[1]}}}", pair[0])["acc"]
    assert verdict == (gold == answer or (close and not whole))
    if gold == answer or abs(gold - answer) > Decimal("2e-6"):
        texts = (f"\\boxed{{{normalise(text)}}}" for text in pair)
        assert verdict == in_process(*texts)


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.sampled_from(["1", "2", "10", "x", "y", r"\pi", r"\sqrt{3}", r"\infty", "0.5"]),
        lambda inner: (
            st.builds(r"\frac{{{}}}{{{}}}".format, inner, inner)
            | st.builds("|{}-{}|".format, inner, inner)
            | st.builds("{}+{}".format, inner, inner)
        ),
        max_leaves=3,
    )
)
def test_an_identical_answer_is_correct_for_math_verify_too(answer):
    parsed = judge_child.parser()(normalise(answer))
    assert verify(parsed, parsed, timeout_seconds=None)


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        ("0.5", "0.5000001", True),
        ("0.5", "0.50001", False),
        ("1", "1.0000001", False),  # a whole number exactly
        ("1" * 60, "1" * 59 + "2", False),
        (r"\frac{1}{3}", "0.333333", True),
        (r"\frac{1}{3}", "0.33333", False),
        (r"\frac{1}{2^{88}}", r"\frac{1}{2^{87}}", False),
        (r"2.88 \times 10^{-19}", "2.88e-19", True),
        (r"\frac{100!}{2^{50}}", r"\frac{100!}{2^{50}}+1", False),
    ],
)
def test_numbers_are_compared_relative_to_their_size(gold, answer, verdict):
    assert correct(rf"\boxed{{{answer}}}", gold) is verdict


# ------------------------------------------------------------------ any text at all

PIECES = st.sampled_from(
    [r"\boxed{", "{", "}", "$", "####", "\n", r"\frac", r"\sqrt", "^", "_", "\\", "(", ")", "[",
     ",", "=", "%", r"\%", "5", "12", ".", "-", "x", "answer is", r"\text{", "&",
     r"\begin{pmatrix}", "\x00", "\ud800", "٣", "∞"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.text() | st.lists(PIECES, max_size=12).map("".join),
    st.sampled_from(["5", "1/2", r"\sqrt{2}", "x+1"]),
)
def test_no_text_raises(response, gold):
    result = compute_score("any", response, gold, time_limit=1)
    assert {key: type(value) for key, value in result.items()} == {
        "score": float,
        "acc": bool,
        "pred": str,
        "judge_timed_out": bool,
    }
    json.dumps(result, ensure_ascii=False).encode()  # as verl writes it


def test_hostile_text_is_never_correct(tmp_path, capsys):
    """A hundred and fifty of the ten thousand of `perf/judge.py`, without its limit on time."""
    benchmark = load_script("perf/judge.py")
    golds = ["18", r"\frac{14}{3}", r"(1,8,19), (2,7,13)", r"2^{1009}", r"\text{Evelyn}"]
    met = benchmark.on_hostile_text(150, golds, tmp_path / "executed", wall_limit=math.inf)
    assert met, capsys.readouterr().out


def test_half_a_character_does_not_reach_a_file():
    result = compute_score("any", "\\boxed{\\text{a\ud800}}", r"\text{b}")
    assert result["pred"] in (r"\text{a?}", "")


# ------------------------------------------------------------------ it cannot hang


def test_a_hanging_answer_is_incorrect_in_a_thread_and_the_next_one_is_judged():
    with ThreadPoolExecutor(1) as threads:
        start = time.monotonic()
        result = threads.submit(compute_score, "any", HANGS, "5", time_limit=1.0).result(60)
        seconds = time.monotonic() - start
        assert (result["acc"], result["judge_timed_out"]) == (False, True)
        assert 1 <= seconds < 20  # one of CPU time, and starting the child
        assert not children()
        assert threads.submit(correct, SUMMED, SUM, time_limit=1.0).result(60)


@pytest.mark.parametrize(
    ("factor", "number"), [(100, signal.SIGPROF), (0.1, signal.SIGALRM)], ids=["cpu", "wall"]
)
def test_the_kernel_ends_a_child_at_its_limits(monkeypatch, factor, number):
    monkeypatch.setattr(judge_pool, "WALL_FACTOR", factor)
    child = judge_pool.Child(1.0, 1024)
    try:
        assert child.ask({"gold": "5", "answer": HANGS}) is None
        assert child.process.wait(5) == -number
    finally:
        child.close()


def test_an_idle_child_has_no_limit_running(monkeypatch):
    monkeypatch.setattr(judge_pool, "WALL_FACTOR", 2)
    child = judge_pool.Child(1.0, 1024)
    try:
        for _ in range(2):
            reply = child.ask({"gold": "x+1", "answer": "1+x"})
            assert (reply["equal"], reply["parsed"]) == (True, True) and reply["seconds"] < 1
            time.sleep(2.5)
    finally:
        child.close()


def test_the_parent_itself_ends_a_child_that_does_not_end(monkeypatch):
    child = judge_pool.Child(5.0, 1024)
    child.process.send_signal(signal.SIGSTOP)  # as if the kernel's timers had failed
    monkeypatch.setattr(child, "wall", 0.2)
    pool = judge_pool.Pool(1, 5.0, 1024)
    pool.idle.get()
    pool.idle.put(child)
    assert pool.ask("x", "y") == (None, False)
    assert not psutil.pid_exists(child.process.pid)
    reply, decided = pool.ask("x+1", "1+x")
    assert reply["equal"] and reply["parsed"] and decided
    pool.close()


def test_memory_is_bounded():
    def peak(child):
        lines = Path(f"/proc/{child.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmPeak")) // 1024

    small, large = judge_pool.Child(8, 200), judge_pool.Child(8, 1024)
    try:
        reply = small.ask({"gold": "5", "answer": GROWS})
        assert (reply["equal"], reply["parsed"]) == (False, True)
        assert peak(small) <= 200  # sooner than the time limit, and the child lives on
        threading.Thread(target=large.ask, args=[{"gold": "5", "answer": GROWS}]).start()
        assert wait_until(lambda: peak(large) > 400, 20)  # it is a bomb
    finally:
        small.close()
        large.process.kill()


def test_a_child_that_was_killed_while_idle_costs_no_verdict():
    assert correct(SUMMED, SUM)
    for child in children():
        child.kill()
        child.wait()
    assert correct(r"\boxed{\frac{m(m+1)}{2}}", r"\sum_{k=1}^m k")


def test_many_threads_share_two_children_and_get_their_own_replies():
    work = [
        (i, rf"{i} + \sum_{{k=1}}^n k", rf"\boxed{{{i + i % 2} + \frac{{n(n+1)}}{{2}}}}")
        for i in range(40)
    ]
    most = 0
    with ThreadPoolExecutor(16) as threads:
        verdicts = [threads.submit(correct, response, gold) for _, gold, response in work]
        while not all(verdict.done() for verdict in verdicts):
            most = max(most, len(children()))
            time.sleep(0.02)
    assert [verdict.result() for verdict in verdicts] == [i % 2 == 0 for i, _, _ in work]
    assert most == 2


def test_a_forked_process_uses_children_of_its_own():
    assert correct(SUMMED, SUM)
    pid = os.fork()
    if pid == 0:
        good = not judge_pool._pools and correct(r"\boxed{\frac{m(m+1)}{2}}", r"\sum_{k=1}^m k")
        judge_pool.close()
        os._exit(0 if good else 1)
    assert correct(r"\boxed{\frac{p(p+1)}{2}}", r"\sum_{k=1}^p k")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


PARENT = """
import signal, sys, threading, time
for number in (signal.SIGPROF, signal.SIGALRM):
    signal.signal(number, signal.SIG_IGN)  # a child inherits that
from recipe.judge import reward as judge
judge.compute_score("any", sys.argv[3], sys.argv[4], time_limit=2, children=1)
print("ready", flush=True)
if sys.argv[1] == "busy":
    ask = lambda: judge.compute_score("any", sys.argv[2], "5", time_limit=2, children=1)
    threading.Thread(target=ask).start()
time.sleep(600)
"""


@pytest.mark.parametrize(("state", "seconds"), [("idle", 2), ("busy", 15)])
def test_a_killed_parent_leaves_no_child(state, seconds):
    command = [sys.executable, "-c", PARENT, state, HANGS, SUMMED, SUM]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout.readline() == "ready\n"
        (child,) = children(parent.pid)
        if state == "busy":
            used = child.cpu_times().user
            assert wait_until(lambda: child.cpu_times().user > used + 0.2, 10)
    finally:
        parent.kill()
        parent.wait()
    gone = lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE  # noqa: E731
    assert wait_until(gone, seconds)  # busy: two seconds of CPU time


def test_the_child_imports_math_verify_alone():
    command = [sys.executable, "-X", "importtime", str(FILE.with_name("child.py"))]
    done = subprocess.run([*command, "1", "4", "1024"], input="", capture_output=True, text=True)
    assert json.loads(done.stdout) == {"ready": True}
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "math_verify" in imported
    assert not imported & {"torch", "ray", "verl", "numpy", "recipe", "datasets"}


def test_without_math_verify_it_says_so_instead_of_calling_all_incorrect(tmp_path, monkeypatch):
    (tmp_path / "math_verify.py").write_text("raise ImportError('it is broken')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"did not start .*it is broken.*import math_verify"):
        correct(SUMMED, SUM, children=3)


# ------------------------------------------------------------------ settings and rows


@pytest.mark.parametrize("gold", [None, ["5"], True, "", "  "])
def test_a_row_without_one_answer_is_refused(gold):
    with pytest.raises(ValueError, match=r"ground_truth.* of a row of openai/gsm8k "):
        compute_score("openai/gsm8k", r"\boxed{5}", gold)


@pytest.mark.parametrize(
    "setting",
    [{"children": 0}, {"time_limit": 0}, {"time_limit": float("nan")}, {"memory_mb": "1"},
     {"memory_mb": 10}, {"time_limit": float("inf")}, {"children": True}],
)  # fmt: skip
def test_bad_settings_are_refused_before_anything_hangs(setting):
    (name,) = setting
    with pytest.raises(ValueError, match=rf"reward_kwargs\.{name}=.* is not allowed: use a number"):
        compute_score("any", r"\boxed{5}", "5", **setting)


def test_an_unknown_setting_is_refused():
    with pytest.raises(TypeError, match="time_limt"):
        compute_score("any", r"\boxed{5}", "5", time_limt=3)


# ------------------------------------------------------------------ in verl


def reward_config(path, **kwargs):
    from omegaconf import OmegaConf

    custom = {"path": path, "name": "compute_score", "reward_kwargs": kwargs}
    manager = {"source": "register", "name": "naive"}
    node = {"custom_reward_function": custom, "reward_manager": manager}
    return OmegaConf.create({"reward": node})


@pytest.mark.parametrize("path", ["pkg://recipe.judge", str(FILE)])
@pytest.mark.parametrize("manager", ["naive", "dapo"])
def test_verls_reward_managers_take_what_it_returns(path, manager):
    import numpy as np
    import torch
    from verl import DataProto
    from verl.trainer.ppo.reward import load_reward_manager

    class Tokenizer:
        def decode(self, ids, skip_special_tokens):
            return r"so \boxed{0.5}"

    config = reward_config(path, time_limit=3)
    config.reward.reward_manager.name = manager

    async def score():
        reward = load_reward_manager(config, Tokenizer())
        ones = torch.ones(1, 4, dtype=torch.long)
        data = DataProto.from_dict(
            {"prompts": ones, "responses": ones, "attention_mask": ones.repeat(1, 2)},
            {
                "data_source": np.array(["MATH"]),
                "reward_model": np.array([{"style": "rule", "ground_truth": "1/2"}], dtype=object),
                "extra_info": np.array([{"index": 0}], dtype=object),
            },
        )
        return await reward.run_single(data)

    result = asyncio.run(score())
    assert result["reward_score"] == 1.0
    assert result["reward_extra_info"]["acc"] is True
    assert result["reward_extra_info"]["pred"] == "0.5"


def test_verls_validation_metrics_take_what_it_returns():
    from verl.trainer.ppo.metric_utils import process_validation_metrics

    responses = [r"\boxed{5}", r"\boxed{5.0}", r"\boxed{6}", "none"]
    results = [compute_score("math", response, "5") for response in responses]
    infos = {key: [result[key] for result in results] for key in results[0]}
    metrics = process_validation_metrics(["math"] * 4, ["uid"] * 4, infos)["math"]
    assert metrics["acc"]["mean@4"] == metrics["score"]["mean@4"] == 0.5
    assert metrics["judge_timed_out"]["mean@4"] == 0
    assert 0.5 < metrics["acc"]["maj@4/mean"] <= 1  # votes over `pred`
    assert "pred" not in metrics


@pytest.mark.ray
def test_in_a_ray_actor_as_verl_calls_it():
    import ray

    @ray.remote(num_cpus=1)
    class Worker:  # as verl's RewardLoopWorker: async, the score in the loop's executor
        def __init__(self, config):
            from verl.trainer.ppo.reward import get_custom_reward_fn

            self.score = get_custom_reward_fn(config)

        async def judge(self, responses, gold):
            loop = asyncio.get_running_loop()

            def score(response):
                return self.score(data_source="a", solution_str=response, ground_truth=gold)

            calls = [loop.run_in_executor(None, score, response) for response in responses]
            return os.getpid(), await asyncio.gather(*calls)

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, address="local")
    try:
        worker = Worker.remote(reward_config(str(FILE), time_limit=1.0))
        responses = [r"\boxed{0.5}", HANGS, r"\boxed{\frac{1}{2}}", r"\boxed{3}", "50%"]
        pid, results = ray.get(worker.judge.remote(responses, "1/2"), timeout=120)
        _, by_math_verify = ray.get(worker.judge.remote([SUMMED], SUM), timeout=120)
        assert [result["acc"] for result in by_math_verify] == [True]
        assert [result["acc"] for result in results] == [True, False, True, False, True]
        assert [result["judge_timed_out"] for result in results] == [
            False,
            True,
            False,
            False,
            False,
        ]
        left = children(pid)
        assert left
        ray.kill(worker)
        assert wait_until(lambda: not any(child.is_running() for child in left), 10)
    finally:
        ray.shutdown()
