"""The engines' defaults and placement: replicas in Ray, on virtual slots. vLLM is in tests/e2e."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from ray_head import ray_cluster

from recipe import machine
from recipe.cpu.model import ModelShape, make_model, make_tokenizer
from recipe.sampling import engine
from recipe.sampling.engine import Chunk, Hardware, Sampling, sample_all

PROMPTS = [[1, 3, 7, 9], [2, 5], [4, 4, 8, 6, 7], [9], [3, 8, 3]]
CHUNKS = [Chunk(n, PROMPTS[n:] + PROMPTS[:n], [n, 0, 0, 0, 0]) for n in range(6)]


@pytest.fixture(scope="module")
def sampling(tmp_path_factory):
    """Of a model of random weights, saved as a checkpoint."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = make_tokenizer()
    shape = ModelShape(layers=1, hidden_size=64, heads=2, mlp_size=64)
    make_model(shape, tokenizer, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Sampling(str(folder), samples=3, max_response_length=12)


def test_hardware_is_the_machines_unless_said_otherwise(monkeypatch):
    defaults = machine.EngineDefaults("float64", True, 0.25)
    monkeypatch.setattr(machine, "engine_defaults", lambda: defaults)
    hardware = Hardware()
    assert hardware.dtype == "float64" and hardware.enforce_eager
    assert hardware.gpu_memory_utilization == 0.25
    assert Hardware(dtype="auto").dtype == "auto"


def test_a_response_ends_at_its_end_token_or_is_cut_off(sampling):
    hardware = Hardware(replicas=1, engine="transformers")
    ((number, responses),) = sample_all(CHUNKS[1:2], sampling, hardware, 5)
    assert number == 1 and responses.log_likelihoods is None
    for values in (responses.texts, responses.tokens, responses.truncated):
        assert [len(row) for row in values] == [3] * 5
    lengths, cut = torch.tensor(responses.tokens), torch.tensor(responses.truncated)
    assert (lengths[cut] == 12).all() and (lengths >= 1).all() and (lengths <= 12).all()
    assert cut.any() and not cut.all()


def test_prompts_of_other_lengths_beside_it_do_not_change_a_greedy_response(sampling):
    greedy = Sampling(sampling.model, samples=1, temperature=0.0, max_response_length=12)
    hardware = Hardware(replicas=1, engine="transformers")
    alone = [Chunk(n, [prompt], [0]) for n, prompt in enumerate(PROMPTS)]
    together = [Chunk(0, PROMPTS, [0] * 5)]
    ((_, batch),) = sample_all(together, greedy, hardware, 5)
    for n, responses in sample_all(alone, greedy, hardware, 5):
        assert responses.texts[0] == batch.texts[n]
        assert responses.tokens[0] == batch.tokens[n]


def test_a_model_s_own_sampling_settings_are_not_taken(sampling, tmp_path):
    """As by vLLM, to which `Sampling` says all: of generation_config.json the end tokens count."""
    model = tmp_path / "model"
    shutil.copytree(sampling.model, model)
    greedy = Sampling(str(model), samples=1, temperature=0.0, max_response_length=12)
    drawn = Sampling(str(model), samples=3, max_response_length=12)
    hardware = Hardware(replicas=1, engine="transformers")

    def responses():
        return [list(sample_all(CHUNKS[:1], x, hardware, 5)) for x in (greedy, drawn)]

    before = responses()
    file = model / "generation_config.json"
    settings = json.loads(file.read_text())
    own = {"repetition_penalty": 5.0, "min_p": 0.9, "no_repeat_ngram_size": 1, "do_sample": True}
    file.write_text(json.dumps(settings | own))
    assert responses() == before
    # every token ends a response
    file.write_text(json.dumps(settings | {"eos_token_id": list(range(len(make_tokenizer())))}))
    assert responses()[1][0][1].tokens == [[1] * 3] * 5


METHOD = "VLLM_WORKER_MULTIPROC_METHOD"
COPY_WEIGHTS = "import torch; torch.ones(2**22).to(torch.bfloat16)"


@pytest.fixture
def fake_vllm(monkeypatch):
    """Stands for vLLM. Its engine's process, which it starts by the method of METHOD, casts weights
    as vLLM's does while it loads them; then it fails. Returns the engines that were made."""
    engines = []

    class LLM:
        def __init__(self, model, **settings):
            process = multiprocessing.get_context(os.environ[METHOD]).Process(
                target=exec, args=(COPY_WEIGHTS,)
            )
            process.start()
            process.join(120)
            self.method, self.loaded, self.closed = os.environ[METHOD], process.exitcode == 0, False
            process.kill()
            self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=self.shutdown))
            engines.append(self)

        def shutdown(self):
            self.closed = True

        def generate(self, prompts, parameters, use_tqdm):
            raise RuntimeError("the engine died")

    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SimpleNamespace
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(machine, "prepare", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv(METHOD, "fork")  # so that it is taken back at the end
    monkeypatch.delenv(METHOD)
    return engines


def test_an_engine_loads_after_a_merge_of_shards_and_is_closed_where_sampling_fails(fake_vllm):
    """The merge joins the shards of the ranks in threads of OpenMP, with which a forked process
    hangs at its first cast. vLLM's process does not see that this one ends."""
    torch.set_num_threads(2)
    torch.cat([torch.ones(2**21), torch.ones(2**21)])
    torch.ones(2**22).to(torch.bfloat16)
    with pytest.raises(RuntimeError, match="the engine died"):
        list(sample_all(CHUNKS, Sampling("model"), Hardware(replicas=1), 5))
    (vllm,) = fake_vllm
    assert vllm.loaded and vllm.method == "spawn" and vllm.closed


@pytest.mark.parametrize("in_cluster", [False, True])
def test_more_replicas_than_fit_are_refused_in_one_sentence(monkeypatch, sampling, in_cluster):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if in_cluster:
        monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    monkeypatch.setattr(engine, "cluster_places", lambda tensor_parallel: 4 // tensor_parallel)
    monkeypatch.setattr(machine, "device_slots", lambda: 4)
    place = "the Ray cluster of RAY_ADDRESS" if in_cluster else "this machine"
    hardware = Hardware(replicas=3, tensor_parallel=2, engine="transformers")
    with pytest.raises(ValueError, match=f"needs 6 GPUs.*and {place} has room for 2 replicas"):
        next(sample_all(CHUNKS, sampling, hardware, 5))


def test_as_many_replicas_as_fit_by_default(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(machine, "default_engines", lambda devices: 8 // devices)
    monkeypatch.setattr(engine, "cluster_places", lambda devices, free: 2 // devices)
    assert [engine.default_replicas(n) for n in (1, 4)] == [8, 2]
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    assert [engine.default_replicas(n) for n in (1, 4)] == [2, 1]


def test_an_evaluation_starts_a_ray_of_its_own_unless_it_is_told_of_one(monkeypatch):
    """Without an address Ray joins the cluster of a `ray start`, and refuses num_gpus there."""
    import ray

    options = []
    monkeypatch.setattr(ray, "init", lambda **given: options.append(given))
    monkeypatch.setattr(machine, "prepare", lambda: None)
    monkeypatch.setattr(machine, "device_slots", lambda: 4)
    monkeypatch.setattr(engine, "cluster_places", lambda devices: 4 // devices)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    engine.connect(2, 2)
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    engine.connect(2, 2)
    own = {"include_dashboard": False, "address": "local", "num_gpus": 4}
    assert options == [own, {"include_dashboard": False}]


def test_an_actor_is_given_the_absolute_path_of_a_model_that_is_here(monkeypatch, tmp_path):
    """It works in another folder. `Sampling` itself, which is recorded, keeps its text."""
    import ray

    given = []

    class Actor:
        def options(self, **_):
            return self

        def remote(self, sampling, *_):
            given.append(sampling)

    monkeypatch.setattr(engine, "connect", lambda *_: None)
    monkeypatch.setattr(engine, "placement_group_of", lambda *_: nullcontext())
    monkeypatch.setattr(engine, "spread", lambda chunks, actors: iter(()))
    monkeypatch.setattr(ray, "remote", lambda **_: lambda engine: Actor())
    monkeypatch.setattr(ray, "kill", lambda actor: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("home/m", "m"):
        (tmp_path / name).mkdir(parents=True)
    models = {
        "m": f"{tmp_path}/m",
        "~/m": f"{tmp_path}/home/m",
        "Qwen/of-a-hub": "Qwen/of-a-hub",
    }
    for model, absolute in models.items():
        sampling = Sampling(model, samples=3)
        assert list(sample_all(CHUNKS, sampling, Hardware(replicas=2), 5)) == []
        assert given[-2:] == [Sampling(absolute, samples=3)] * 2
        assert sampling.model == model
    assert len(given) == 2 * len(models)


@pytest.mark.ray
def test_two_replicas_on_slots_sample_what_one_does(monkeypatch, sampling):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(machine, "device_slots", lambda: 2)
    torch.set_num_threads(1)  # as Ray sets it in an actor
    alone, together = (
        dict(sample_all(CHUNKS, sampling, Hardware(replicas, engine="transformers"), 5))
        for replicas in (1, 2)
    )
    assert sorted(together) == list(range(6))
    assert alone == together


@pytest.mark.ray
def test_a_replica_that_waits_for_its_devices_holds_nothing_up(monkeypatch):
    """Of two replicas one has to wait for a slot that another job holds."""
    import ray

    class Replica:
        def sample(self, chunk):
            return chunk.number, os.getpid()

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ray.init(num_gpus=2, num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        actor_class = ray.remote(num_gpus=1, num_cpus=0)(Replica)
        other_job = actor_class.remote()
        ray.get(other_job.__ray_ready__.remote())
        actors, results = [actor_class.remote() for _ in range(2)], {}
        work = threading.Thread(
            target=lambda: results.update(engine.spread(CHUNKS, actors)), daemon=True
        )
        work.start()
        work.join(60)
        assert sorted(results) == list(range(6))
        assert len(set(results.values())) == 1
    finally:
        ray.shutdown()


# ---- in a Ray cluster that others use ------------------------------------------------------------


def stub_engine():
    """Returns a class that stands for an engine: it answers with the process and the devices that
    it has, when as many replicas as `samples` says are there. Made in a function, so that Ray sends
    it along."""

    class StubEngine:
        def __init__(self, sampling, hardware, longest_prompt):
            self.folder, self.replicas = Path(sampling.model), sampling.samples
            (self.folder / str(os.getpid())).touch()

        def sample(self, chunk):
            end = time.monotonic() + 120
            while len(list(self.folder.iterdir())) < self.replicas and time.monotonic() < end:
                time.sleep(0.05)
            time.sleep(0.2)
            return chunk.number, (os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"))

    return StubEngine


def stub_chunks(folder, chunks, replicas, hardware):
    """Samples so many chunks by a stub; returns {number: (process, devices)}."""
    work = [Chunk(n, [[1]], [0]) for n in range(chunks)]
    return dict(sample_all(work, Sampling(str(folder), samples=replicas), hardware, 1))


OTHER_JOB = """
import sys, ray
ray.init(log_to_driver=False)

class Training:
    pass

training = ray.remote(num_gpus=int(sys.argv[1]), num_cpus=0)(Training).remote()
ray.get(training.__ray_ready__.remote())
print("holds", flush=True)
sys.stdin.read()
"""


@contextmanager
def other_job(devices):
    """Holds devices of the cluster, as another run's training does."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", OTHER_JOB, str(devices)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout.readline() == b"holds\n"
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def address():
    with ray_cluster({"num_gpus": 4, "num_cpus": 2}) as address:
        yield address


@pytest.fixture
def cluster(monkeypatch, address):
    """A Ray cluster of one node with 4 virtual GPUs, in RAY_ADDRESS."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setitem(engine.ENGINES, "stub", stub_engine())


def free_devices():
    import ray

    ray.init(log_to_driver=False)
    try:
        return int(ray.available_resources().get("GPU", 0))
    finally:
        ray.shutdown()


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.ray
@pytest.mark.parametrize("replicas", [None, 2])
def test_an_evaluation_takes_its_own_devices_while_another_run_holds_the_others(
    cluster, tmp_path, replicas
):
    """By default what is free, or as many as it is told; all of it is free again at the end."""
    with other_job(2):
        results = stub_chunks(tmp_path, 6, 2, Hardware(replicas, engine="stub"))
        assert sorted(results) == list(range(6))
        processes, devices = map(set, zip(*results.values(), strict=True))
        assert len(processes) == 2 and len(devices) == 2
        assert os.getpid() not in processes
        until(lambda: free_devices() == 2)


@pytest.mark.ray
def test_a_single_replica_is_an_actor_too_where_devices_are_the_clusters(cluster, tmp_path):
    hardware = Hardware(1, tensor_parallel=2, engine="stub")
    ((process, devices),) = stub_chunks(tmp_path, 1, 1, hardware).values()
    assert process != os.getpid() and len(devices.split(",")) == 2


@pytest.mark.ray
def test_devices_that_others_hold_are_waited_for_and_all_or_none_are_taken(
    cluster, tmp_path, monkeypatch, capsys
):
    """Three are wanted and one is free: it is not held, and after the limit a sentence says why."""
    monkeypatch.setattr(engine, "DEVICE_WAIT", 120)
    hardware = Hardware(3, engine="stub")
    with other_job(3) as job:
        threading.Timer(6, job.kill).start()
        results = stub_chunks(tmp_path, 6, 3, hardware)
        assert len({process for process, _ in results.values()}) == 3
        assert "waiting for 3 GPUs of the Ray cluster" in capsys.readouterr().out
    until(lambda: free_devices() == 4)
    monkeypatch.setattr(engine, "DEVICE_WAIT", 1)
    with other_job(3):
        with pytest.raises(TimeoutError, match=r"--replicas 3 with .*needs 3 GPUs, and other jobs"):
            stub_chunks(tmp_path, 6, 3, hardware)
        until(lambda: free_devices() == 1)


@pytest.mark.ray
def test_no_more_replicas_than_chunks_are_started(cluster, tmp_path):
    assert len(stub_chunks(tmp_path, 2, 2, Hardware(4, engine="stub"))) == 2
    assert len(list(tmp_path.iterdir())) == 2
