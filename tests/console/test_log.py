"""What is read in a run's log: recorded lines of verl 0.9.1, Ray 2.60 and vLLM."""

import pytest

from recipe.console import log
from recipe.experiment.run import printable

OF_WORKER = """\
(WorkerDict pid=4411) INFO: computing the loss
Training Progress:  25%|██▌       | 1/4 [00:12<00:36, 12.1s/it]
Error executing job with overrides: []
Traceback (most recent call last):
  File "/opt/recipe/launch/__main__.py", line 101, in train
    run_ppo(config, task_runner_class=runner)
  File "/opt/ray/_private/worker.py", line 3000, in get_objects
    raise value.as_instanceof_cause()
ray.exceptions.RayTaskError(ValueError): \x1b[36mray::TaskRunner.run()\x1b[39m (pid=41)
  File "/opt/verl/trainer/main_ppo.py", line 300, in run
    trainer.fit()
ray.exceptions.RayTaskError(ValueError): \x1b[36mray::WorkerDict.update()\x1b[39m (pid=44)
  File "/opt/tests/failing_loss.py", line 15, in failing
    raise ValueError("rank 1 refuses this batch: use another")
           ^^^^^^^^^^
ValueError: rank 1 refuses this batch: use another
"""


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (OF_WORKER, "rank 1 refuses this batch: use another"),
        ("(Server pid=7) (EngineCore pid=9) RuntimeError: no\nbye", "RuntimeError: no"),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried",
            "OutOfMemoryError: CUDA out of memory. Tried",
        ),
        (
            "ray.exceptions.ActorDiedError: The actor died unexpectedly\n\tclass_name: W",
            "ActorDiedError: The actor died unexpectedly",
        ),
        ("AssertionError", "AssertionError"),
        ("KeyError: 'x'\nthen FileNotFoundError: no", "KeyError: 'x'"),
        ("RuntimeError: first\nFileNotFoundError: a.parquet is gone.", "a.parquet is gone."),
        ("all went well: Error rate 0.1", ""),
        ("", ""),
    ],
)
def test_the_cause_is_the_last_exception_s_line(text, cause):
    assert log.cause(printable(text)) == cause


def test_the_cause_of_an_exception_object_is_one_line():
    class RayTaskError(RuntimeError):  # Ray's carries the worker's traceback in its text
        pass

    assert log.cause_of(RayTaskError(OF_WORKER)) == "rank 1 refuses this batch: use another"
    assert log.cause_of(AssertionError()) == "AssertionError"
    assert log.cause_of(ValueError("of two\nlines")) == "of two"
    assert log.cause_of(StopIteration("x")) == "StopIteration: x"


def test_the_last_lines_have_no_frames_and_no_repetition():
    text = printable("warned\nwarned\nwarned\n" + OF_WORKER)
    assert log.last_lines(text, 12) == [
        "warned",
        "INFO: computing the loss",
        "Error executing job with overrides: []",
        "ValueError: rank 1 refuses this batch: use another",
    ]
    metrics = "step:3 - actor/entropy:0.2\n {'val-core/x/acc/mean@1': np.float64(0.4),\n"
    assert log.last_lines(f"said\n{metrics}{'x' * 300}\n", 9) == ["said", "x" * 199 + "…"]
    assert log.last_lines(f"{'x' * 80}\n{'y' * 81}\n", 2, 80) == ["x" * 80, "y" * 79 + "…"]
    assert log.last_lines(text, 1) == ["ValueError: rank 1 refuses this batch: use another"]
    assert log.last_lines("", 5) == []


def test_what_a_start_is_doing_and_how_many_steps_it_has():
    lines = [
        ("", "starting", None),
        ("ray init kwargs: {}", "starting Ray", None),
        ("2026 INFO worker.py:2038 -- Started a local Ray instance.", "loading the model", None),
        ("INFO:2026:actor and ref model engine initialized", "starting vLLM", None),
        (
            "INFO:2026:all initialize finished, ready to fit",
            "validating, or the first rollouts",
            None,
        ),
        ("Training Progress:   0%|          | 0/90 [00:00<?, ?it/s]", "the first step", 90),
    ]
    text = ""
    for line, doing, steps in lines:
        text += line + "\n"
        assert (log.phase(text), log.total_steps(text)) == (doing, steps)


def test_verl_still_prints_what_the_phases_are_told_by():
    """Fails when verl changes the words; the console then only says less."""
    from importlib.util import find_spec
    from pathlib import Path

    if find_spec("verl") is None:
        pytest.skip("verl is not installed")
    folder = Path(find_spec("verl").origin).parent / "trainer"
    source = "".join(
        (folder / name).read_text() for name in ("ppo/v1/trainer_base.py", "main_ppo.py")
    )
    for mark, _ in log.PHASES:
        if "Ray " not in mark:
            assert mark.rstrip(":") in source


def test_only_the_end_of_a_long_log_is_read(tmp_path):
    file = tmp_path / "log.txt"
    assert log.end_of(file) == ""
    file.write_bytes(b"x" * log.TAIL + b"\xff\x1b[31mred\x1b[0m\n")
    assert len(log.end_of(file)) < log.TAIL and log.end_of(file).endswith("\ufffdred\n")
    assert log.end_of(file, begin=log.TAIL + 1) == "red\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0;1m", "red"),
        ("\x1b[2J\x1b[1;1H\x1b[?25lcleared", "cleared"),
        ("a\x1b]0;owned\x07b", "ab"),  # the window's title
        ("a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
        ("a\x1b]0;not closed\nnext", "a0;not closed\nnext"),  # text may follow
        ("\x1bcreset\x1b(B", "reset"),
        ("\x9b2J\x9d0;owned\x9cone byte", "one byte"),
        ("\x00a\x07b\x08c\x7fd\x1b", "abcd"),
        ("\x1b\x1b[31m[2J", "[2J"),
        ("a\tb\r\nc é ▕ 漢", "a\tb\r\nc é ▕ 漢"),
    ],
)
def test_what_a_terminal_would_obey_is_left_out(tmp_path, text, shown):
    """An exception may quote what a model has sampled."""
    file = tmp_path / "log.txt"
    file.write_bytes(text.encode())
    assert log.end_of(file) == shown
    assert log.cause_of(ValueError(text)).isprintable()
