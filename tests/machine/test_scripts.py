"""The scripts for batch systems and new machines, with stand-ins for what this machine lacks."""

import os
import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
from scripts import load_script

ROOT = Path(__file__).parents[2]
# Slurm's commands, executed here: two names for this machine
SRUN = 'while [[ $1 == --* ]]; do shift; done\nexec "$@"'
SCONTROL = r"printf 'node-a\nnode-b\n'"
JOB = """
import os, ray
ray.init(address=os.environ["RAY_ADDRESS"], logging_level="ERROR")
alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
print("joined:", *([has.get(kind) for has in alive] for kind in ("GPU", "CPU")))
print("told:", os.environ["NNODES"], os.environ["NGPUS_PER_NODE"], os.environ["RAY_AUTH_MODE"])
"""
PYTHON = """
case "$*" in
  *machine.name*) echo cpu ;;
  *"gpu_check.py card") echo 80 ;;
  *"gpu_check.py losses") echo "a | b"; exit 1 ;;
  *--dry-run*) printf "[recipe] memory     1 of 80 GB\n[recipe] disk       2 GB\n" ;;
  *recipe.launch*) echo "trained" ;;
  *"recipe.evaluate "*"--max-prompts 16 "*"--chunk 2 "*) echo "in 8 chunks" ;;
  *) echo "all is well" ;;
esac
"""


def stand_in(folder: Path, name: str, body: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/usr/bin/env bash\n{body}\n")
    file.chmod(0o755)
    return file


@pytest.fixture
def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("script", ["recipe/machine/slurm.sh", "recipe/machine/ray_job.sh"])
def test_a_script_is_bash(script):
    subprocess.run(["bash", "-n", ROOT / script], check=True)


@pytest.mark.ray
def test_a_slurm_job_starts_ray_on_its_nodes_and_ends_it(tmp_path, free_port):
    import psutil

    stand_in(tmp_path / "bin", "srun", SRUN)
    stand_in(tmp_path / "bin", "scontrol", SCONTROL)
    (tmp_path / "job.py").write_text(JOB)
    ray_folder = f"/tmp/ray-slurm-{os.getpid()}"  # short: a socket's path has 107 bytes
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_NODELIST": "node-[a-b]",
        "SLURM_CPUS_ON_NODE": "2",
        "NGPUS_PER_NODE": "2",
        "RAY_PORT": str(free_port),
        "RAY_HEAD_OPTIONS": f"--temp-dir={ray_folder}",
    }
    environment.pop("RAY_ADDRESS", None)
    command = ["bash", ROOT / "recipe/machine/slurm.sh", sys.executable, tmp_path / "job.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "joined: [2.0, 2.0] [24.0, 24.0]" in done.stdout
    assert "told: 2 2 token" in done.stdout
    commands = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]
    left = [command for command in commands if ray_folder in command]
    assert left == []


def test_a_job_gets_its_variables_with_its_command(tmp_path):
    body = f'[[ $1 != -c ]] || exec {sys.executable} "$@"\nprintf "%s\\n" "$@"'
    environment = {
        **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME")},
        "PYTHON": str(stand_in(tmp_path, "python", body)),
        "CLUSTER_ROOT": "/shared/recipes",
        "RAY_API": "http://head:8265",
        "NNODES": "2",
        "CKPTS_DIR": "/shared/a b",
        "FORWARD": "NCCL_DEBUG",
        "NCCL_DEBUG": "INFO",
    }
    command = ["bash", ROOT / "recipe/machine/ray_job.sh", "bash", "run.sh", "a=b c"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        *("-m", "ray.scripts.scripts", "job", "submit", "--address", "http://head:8265"),
        *("--runtime-env-json", '{"env_vars": {"NCCL_DEBUG": "INFO"}}', "--"),
        *("env", "--chdir", "/shared/recipes", "RAY_OVERRIDE_JOB_RUNTIME_ENV=1"),
        *("NNODES=2", "CKPTS_DIR=/shared/a b", "bash", "run.sh", "a=b c"),
    ]
    files = {ROOT / "recipe/run.sh", *ROOT.glob("recipe/*/*.sh")}
    files -= set(ROOT.glob("recipe/machine/*.sh"))
    texts = [file.read_text() for file in files]
    read = {name for text in texts for name in re.findall(r"\$\{([A-Z_]+):[-?]", text)}
    read -= {"PYTHON", "COMMAND_FILE"}  # of the machine that submits, and of recipe.compare
    assert len(read) > 20
    all_set = {**environment, **dict.fromkeys(read, "1")}
    done = subprocess.run(command, env=all_set, capture_output=True, text=True, check=True)
    assert {f"{name}=1" for name in read} <= set(done.stdout.splitlines())
    del environment["RAY_API"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode != 0 and "RAY_API: is not set: give the address" in done.stderr


def test_a_check_that_fails_leaves_the_others_to_run(tmp_path):
    """The Python that does the work is a stand-in; the real one takes minutes (docs/cluster.md)."""
    environment = {**os.environ, "PYTHON": str(stand_in(tmp_path, "python", PYTHON))}
    environment |= {"MODEL_PATH": "Qwen/of-a-hub", "DATA_DIR": str(tmp_path)}
    command = ["bash", ROOT / "recipe/gpu_check.sh", tmp_path / "out"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    table = (tmp_path / "out/table.md").read_text()
    assert table in done.stdout
    head, _, *rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert head == ["check", "result", "seconds", "last line"]
    results = {row[0]: row[1] for row in rows}
    assert (
        list(results)
        == textwrap.dedent("""
        environment
        registrations
        attention kernels
        losses
        token selection
        model and data
        memory estimate
        asymgrpo
        resume
        evaluation
        clip_entropy
        semantic entropy
        semantic_curriculum
    """).split("\n")[1:-1]
    )
    assert [name for name, result in results.items() if result == "FAILED"] == ["losses"]
    assert all(len(row) == 4 for row in rows)  # also where a line has a | of its own
    assert "| [recipe] memory 1 of 80 GB;[recipe] disk 2 GB |" in table
    assert "| in 8 chunks |" in table  # work for as many engines
    assert (tmp_path / "out/losses.txt").read_text() == "a | b\n"
    again = subprocess.run([*command, "resume", "token selection"], env=environment, timeout=60)
    assert again.returncode == 0
    assert len((tmp_path / "out/table.md").read_text().splitlines()) == 2 + 2


def test_a_card_is_of_as_many_gb_as_its_name_says(monkeypatch):
    """GPU_GB counts 2^30 bytes: an H100 of 80 GB has 79.2 of them, 85.1e9 bytes."""
    pytest.importorskip("verl")
    monkeypatch.syspath_prepend(ROOT / "perf")
    gpu_check = load_script("perf/gpu_check.py")
    card = SimpleNamespace(total_memory=85_051_834_368)
    monkeypatch.setattr(gpu_check.machine, "torch_device", lambda: "cuda")
    monkeypatch.setattr(gpu_check.torch.cuda, "get_device_properties", lambda device: card)
    assert gpu_check.card() == "79"


@pytest.mark.parametrize("name", ["asymgrpo", "clip_entropy", "semantic_curriculum"])
def test_the_trainings_fit_a_gpu(name, tmp_path):
    """Its settings are those of the CPU task, and verl's defaults where cpu.yaml has others."""
    pytest.importorskip("verl")
    from recipe.launch import check_sizes, check_values
    from recipe.launch.compose import compose

    command = tmp_path / "command"
    python = stand_in(tmp_path, "python", PYTHON.replace("echo cpu", "echo gpu"))
    environment = {**os.environ, "PYTHON": str(python), "COMMAND_FILE": str(command)}
    environment |= {"HOME": str(tmp_path), "MODEL_PATH": "Qwen/of-a-hub"}
    script = ["bash", ROOT / "recipe/gpu_check.sh", tmp_path / "out", name, "--", "data.seed=7"]
    subprocess.run(script, env=environment, check=True, timeout=120)
    words = command.read_bytes().decode().split("\0")[:-1]
    config = compose(name, words[words.index("recipe.launch") + 2 :])
    assert (config.trainer.device, config.trainer.n_gpus_per_node) == ("cuda", 1)
    assert config.data.seed == 7  # what follows -- is added to every training
    for check in (check_sizes.parallel_sizes, check_values.batches):
        check(config)
