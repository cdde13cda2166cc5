"""The registered trainer is verl's synchronous one with the additions, whatever its name."""

import pytest

pytest.importorskip("verl")

import json
import re
from types import SimpleNamespace

import numpy as np
import torch
from builders import PROMPT, queue_of, write_scores
from omegaconf import OmegaConf, open_dict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import get_trainer_cls
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

import recipe.trainer
from recipe.asymgrpo.part import AsymGRPOPart
from recipe.clip_entropy.config import ClipSettings
from recipe.clip_entropy.part import ClipSchedulePart
from recipe.core import states, transfer_queue
from recipe.core.part import Part, PromptOrder
from recipe.core.rollouts import CorrectnessRule
from recipe.core.settings import settings_of
from recipe.core.step import Step
from recipe.core.trainer_settings import TrainerSettings
from recipe.launch.compose import compose

CONFIG = [
    "machine=cpu",
    "actor_rollout_ref.model.path=none",
    "data.train_files=none",
    "data.val_files=none",
]


def trainer(*overrides: str):
    config = compose("asymgrpo", [*CONFIG, *overrides])
    return get_trainer_cls(config.trainer.v1.trainer_mode)(config)


def bare_trainer(*parts: Part, **more) -> recipe.trainer.RecipeTrainerSync:
    """A trainer with these parts, that verl has not initialised: a hundredth of the time."""
    ours = object.__new__(recipe.trainer.RecipeTrainerSync)
    ours.parts, ours.config = list(parts), OmegaConf.create({})
    vars(ours).update(more)
    return ours


def test_it_behaves_as_the_synchronous_trainer():
    """verl takes any name but "sync" for asynchronous: another buffer, prompt batches of one."""
    ours = trainer()
    assert isinstance(ours, PPOTrainerSync)
    assert ours.trainer_mode == "sync"
    assert type(ours.replay_buffer) is ReplayBuffer
    assert ours.replay_buffer.gen_batch_size == ours.config.data.train_batch_size


def test_its_settings_reach_it():
    ours = trainer(
        "trainer.v1.recipe_sync.poll_interval=0.25",
        "trainer.v1.recipe_sync.log_prob_gain_freq=3",
        "algorithm.asymgrpo.preset=grpo_entropy_adv",
    )
    assert ours.replay_buffer.poll_interval == 0.25
    assert ours.settings.log_prob_gain_freq == 3
    (asymgrpo,) = (part for part in ours.parts if isinstance(part, AsymGRPOPart))
    assert asymgrpo.settings.entropy_shaped


def test_more_steps_than_verl_would_train_are_refused():
    """Two epochs of three batches; verl's loop would end without the last checkpoint."""
    ours = trainer()
    # with dynamic sampling the dataloader has a prompt at a time
    ours.steps_per_epoch, ours.train_dataloader, ours.train_dataset = 3, [None] * 13, [None] * 13
    ours.config.trainer.total_epochs, ours.total_training_steps = 2, 6
    ours._check_length()
    ours.total_training_steps = 7
    with pytest.raises(ValueError, match=r"total_training_steps=7 .* more than the 6 steps .* 13 "):
        ours._check_length()


def test_a_plan_s_length_is_that_of_all_learning_rates():
    from torchdata.stateful_dataloader import StatefulDataLoader

    ours = trainer()
    ours.train_dataset = [{}] * 8
    ours.train_dataloader = StatefulDataLoader(ours.train_dataset, batch_size=4)
    ours.parameter_sync_step = 2  # updates of a step
    ours._follow(PromptOrder([3, 2, 1, 0] * 3 + [3], steps=3))  # and a draw too many
    assert ours.total_training_steps == 3
    nodes = (ours.config.actor_rollout_ref.actor, ours.config.critic)
    assert [node.optim.total_training_steps for node in nodes] == [6, 6]
    batches = [batch["dataset_row"].tolist() for batch in ours.train_dataloader]
    assert batches == [[3, 2, 1, 0]] * 3


@pytest.mark.parametrize(
    ("order", "checked"),
    [(None, True), (PromptOrder([0], steps=None), True), (PromptOrder([0], steps=1), False)],
)
def test_the_length_is_checked_unless_a_plan_is_the_length(monkeypatch, order, checked):
    class Ordering(Part):
        def prompt_order(self, prompts):
            return order if list(prompts) == ["a"] else pytest.fail("other prompts")

    calls = []
    dataset = SimpleNamespace(dataframe={"prompt": ["a"]}, prompt_key="prompt")
    ours = bare_trainer(Ordering(), train_dataset=dataset)
    ours._follow = calls.append
    ours._check_length = lambda: calls.append("length")
    monkeypatch.setattr(PPOTrainerSync, "_init_dataloader", lambda self: None)
    ours._init_dataloader()
    assert calls == [order] * (order is not None) + ["length"] * checked


def test_a_wrong_preset_is_refused_by_the_trainer_too():
    """For a run that verl's own command started, without the launcher's checks."""
    config = compose("asymgrpo", CONFIG)
    config.algorithm.asymgrpo.beta_pos = -1
    with pytest.raises(ValueError, match="beta_pos=-1"):
        recipe.trainer.RecipeTrainerSync(config)


@pytest.fixture
def ordering(monkeypatch):
    """A trainer without rollouts, whose verl turns a batch's rows around and pads it by one row."""
    ours = trainer()
    ours.actor_rollout_wg = SimpleNamespace(compute_log_prob=None, _dispatch_info={"actor": [0]})
    ours.global_steps = 1

    def balanced(self, batch, **options):
        rows = [*reversed(batch.keys), "padding"]
        return KVBatchMeta(partition_id="train", keys=rows, tags=[{"key": key} for key in rows])

    monkeypatch.setattr(PPOTrainerSync, "_submit_batch_to_rollout", lambda self, batch: len(batch))
    monkeypatch.setattr(PPOTrainerSync, "_balance_batch", balanced)
    return ours


def batch_of(uids: str) -> KVBatchMeta:
    """Three rollouts of each prompt, in no order."""
    keys = [f"{uid}_{k}_0" for k in (10, 0, 2) for uid in uids]
    return KVBatchMeta(partition_id="train", keys=keys, tags=[{"key": key} for key in keys])


def rollouts(uids: str) -> list[str]:
    return [f"{uid}_{k}_0" for uid in uids for k in (0, 2, 10)]


def test_rollouts_keep_the_order_of_their_prompts_whatever_verl_s_names(ordering):
    """verl's buffer gives them in the order of a set of random names."""
    for first, second, later in ("zac", "xyb"):
        ordering._submit_batch_to_rollout({"uid": [first, "m"]})
        ordering._submit_batch_to_rollout({"uid": [second, later]})  # in place of dropped ones
        # two updates of one step; the second has what the first has left
        for taken, expected in ((f"{second}m{first}", f"{first}m{second}"), (later, later)):
            batch = ordering._balance_batch(batch_of(taken), metrics={})
            assert batch.keys == [*reversed(rollouts(expected)), "padding"]
            assert batch.keys == [tag["key"] for tag in batch.tags]
            order_B = ordering._make_step(batch, {}).order_B
            assert [batch.keys[row] for row in order_B] == [*rollouts(expected), "padding"]


def test_the_first_drawn_of_the_prompts_that_are_ready_are_trained(ordering):
    """Where dynamic sampling has drawn more than a batch needs."""
    buffer = ordering.replay_buffer
    ordering._submit_batch_to_rollout({"uid": list("zaqmc")})
    buffer.prompt_global_steps["train"] = dict.fromkeys("zaqmc", 1)
    assert buffer._select_prompt_uids("train", {*"camq"}, 3)[0] == ["a", "q", "m"]


def test_the_places_of_dropped_prompts_do_not_pile_up(ordering, monkeypatch):
    monkeypatch.setattr(recipe.trainer, "PLACES", 3)
    ordering._submit_batch_to_rollout({"uid": list("zyxwv")})
    assert list(ordering._place) == list("xwv")
    # what a checkpoint brings back, say, is older
    assert ordering._balance_batch(batch_of("wzx"), metrics={}).keys == [
        *reversed(rollouts("zxw")),
        "padding",
    ]


def nested(*rows: list[float]) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


def step_of(ours, fields: dict, tags: list[dict], monkeypatch, forward=None) -> Step:
    """A step whose fields lie in a dictionary: TransferQueue itself needs a Ray cluster (the real
    one is in tests/e2e)."""
    monkeypatch.setattr(
        transfer_queue, "read", lambda batch, *names: {n: fields[n] for n in names if n in fields}
    )

    def write(batch, **more):
        fields.update(more)
        return KVBatchMeta(partition_id="train", keys=batch.keys, tags=batch.tags)

    monkeypatch.setattr(transfer_queue, "write", write)
    batch = KVBatchMeta(partition_id="train", keys=[str(i) for i in range(len(tags))], tags=tags)
    settings = {"config": ours.config, "correctness": ours.correctness, "forward": forward}
    return Step(batch, number=0, metrics={}, **settings)


def test_another_estimator_takes_any_reward(monkeypatch):
    """Only the diagnostics by outcome need to know what is correct; asymgrpo itself must refuse."""
    fields = {"rm_scores": nested([0.3], [1.0])}
    plain = trainer("algorithm.asymgrpo.preset=dr_grpo")
    assert step_of(plain, fields, [{}, {}], monkeypatch).correct_B is None
    with pytest.raises(ValueError, match="neither correct"):
        _ = step_of(trainer(), fields, [{}, {}], monkeypatch).correct_B


@pytest.mark.parametrize("required", [True, False])
def test_a_reward_that_does_not_say_is_refused_before_verl_uses_it_if_it_must(
    monkeypatch, required
):
    workers = SimpleNamespace(compute_log_prob=None, _dispatch_info={"actor": [0]})
    ours = bare_trainer(correctness=CorrectnessRule(required=required), actor_rollout_wg=workers)
    ours.global_steps, ours._order = 1, {}
    used = []

    def advantages(self, batch, metrics):
        used.append(batch)
        return batch

    monkeypatch.setattr(PPOTrainerSync, "_compute_advantage", advantages)
    fields = {"rm_scores": nested([0.3]), "uid": np.array(["a"], dtype=object)}
    batch = KVBatchMeta(partition_id="train", keys=["a_0_0"], tags=[{}])
    with queue_of(fields):
        if required:
            with pytest.raises(ValueError, match=r"reward is 0\.3, neither correct"):
                ours._compute_advantage(batch, {})
        else:
            assert ours._compute_advantage(batch, {}) is batch
    assert len(used) == (not required)


def test_a_named_field_says_what_is_correct_and_padding_rows_are_not_judged(monkeypatch):
    """verl pads a short batch with rows of reward 0 that are tagged."""
    field = trainer("algorithm.asymgrpo.correct_field=acc")
    results = np.array(
        [{"reward_extra_info": {"acc": value}} for value in (True, False)], dtype=object
    )
    assert step_of(field, {"extra_fields": results}, [{}, {}], monkeypatch).correct_B.tolist() == [
        True,
        False,
    ]
    scores = {"rm_scores": nested([-1.0], [1.0], [0.0])}
    step = step_of(trainer(), scores, [{}, {}, {"is_padding": True}], monkeypatch)
    assert step.real_B.tolist() == [True, True, False]
    assert step.correct_B[:2].tolist() == [False, True]


def test_the_parts_run_in_one_order_and_each_sees_the_step(monkeypatch):
    """Advantage hooks, then before_update, verl's update, after_update: of every part in turn."""
    ours, calls = trainer("algorithm.adv_estimator=grpo"), []

    class Recorder(Part):
        def __init__(self, name):
            self.label = name

        def after_advantage(self, step):
            calls.append((self.label, "after_advantage"))

        def before_update(self, step):
            calls.append((self.label, "before_update"))
            step.tell_loss(**{self.label: 1})

        def after_update(self, step):
            calls.append((self.label, "after_update"))
            step.metrics[self.label] = step.metrics["verl"]

    def update(self, batch, metrics):
        assert batch.fields == ["input_ids"]  # what the workers are sent
        calls.append(("verl", dict(batch.extra_info["recipe"])))
        metrics["verl"] = 7
        return batch

    def for_workers(batch):
        batch.fields = ["input_ids"]
        return batch

    monkeypatch.setattr(transfer_queue, "read", lambda batch, *names: {})
    monkeypatch.setattr(transfer_queue, "for_workers", for_workers)
    monkeypatch.setattr(PPOTrainerSync, "_compute_advantage", lambda self, batch, metrics: batch)
    monkeypatch.setattr(PPOTrainerSync, "_update_actor", update)
    ours.parts = [Recorder("a"), Recorder("b")]
    ours.global_steps, ours.actor_rollout_wg = (
        3,
        SimpleNamespace(compute_log_prob=None, _dispatch_info={"actor": [0, 1]}),
    )
    metrics = {}
    batch = KVBatchMeta(partition_id="train", keys=["x"], tags=[{}])
    batch = ours._compute_advantage(batch, metrics)
    assert ours.current_step.number == 2 and ours.current_step.ranks == 2
    ours._update_actor(batch, metrics)
    assert calls == [
        ("a", "after_advantage"),
        ("b", "after_advantage"),
        ("a", "before_update"),
        ("b", "before_update"),
        ("verl", {"a": 1, "b": 1}),
        ("a", "after_update"),
        ("b", "after_update"),
    ]
    assert metrics == {"verl": 7, "a": 7, "b": 7}


@pytest.mark.parametrize("reads_step", [True, False])
def test_the_workers_loss_gets_what_the_parts_have_for_it(monkeypatch, reads_step):
    """Hooks and observers run on the workers; a part that has none is not asked."""

    class Hook(Part):
        reads_step_in_loss = reads_step
        logit_hook = staticmethod(lambda logits: {})

    class Observer(Part):
        loss_observers = (len, repr)

    told = []
    ours = bare_trainer(Hook(), Part(), Observer())
    ours.config = OmegaConf.create({"actor_rollout_ref": {"actor": {"strategy": "fsdp2"}}})
    ours.actor_rollout_wg = SimpleNamespace(set_loss_fn=told.append)
    monkeypatch.setattr(PPOTrainerSync, "on_init_end", lambda self: None)
    monkeypatch.setattr(recipe.trainer, "omega_conf_to_dataclass", dict)
    ours.on_init_end()
    expected = {"logit_hooks": [Hook.logit_hook], "observers": [len, repr]}
    assert [loss.keywords for loss in told] == [
        {"config": {"strategy": "fsdp2"}, **expected}
    ] * reads_step


def test_two_parts_of_one_name_are_refused_since_their_state_goes_by_it(monkeypatch):
    import recipe.core.diagnostics_part

    monkeypatch.setattr(recipe.core.diagnostics_part.DiagnosticsPart, "name", "asymgrpo")
    with pytest.raises(ValueError, match="2 trainer parts are called 'asymgrpo'"):
        trainer()


def test_parts_that_say_the_same_thing_differently_are_refused():
    assert recipe.trainer.the_one([], "order the prompts", None) is None
    assert recipe.trainer.the_one([3, 3], "order the prompts", None) == 3
    with pytest.raises(ValueError, match="Two recipes order the prompts, and differ"):
        recipe.trainer.the_one([3, 4], "order the prompts", None)


def test_the_parts_of_a_run_are_those_that_its_config_uses():
    names = lambda *overrides: [part.name for part in trainer(*overrides).parts]  # noqa: E731
    assert names() == ["asymgrpo", "diagnostics"]
    assert names("algorithm.adv_estimator=grpo") == ["diagnostics"]
    loss = "actor_rollout_ref.actor.policy_loss"
    assert names(f"{loss}.loss_mode=dynamic_clip") == ["asymgrpo", "clip_schedule", "diagnostics"]
    assert names(f"{loss}.loss_mode=sent", f"{loss}.token_rule.clip=false") == [
        "asymgrpo",
        "token_rule",
        "diagnostics",
    ]
    off = [
        "trainer.v1.recipe_sync.diagnostics=false",
        "trainer.v1.recipe_sync.log_prob_gain_freq=0",
    ]
    silent = trainer(*off)
    assert [part.name for part in silent.parts] == ["asymgrpo"]
    gain_alone = TrainerSettings(diagnostics=False, log_prob_gain_freq=3)
    parts = recipe.trainer.make_parts(silent.config, gain_alone)
    assert [part.name for part in parts] == ["asymgrpo", "diagnostics"]


def test_state_is_written_whole_and_read_back(tmp_path, monkeypatch):
    """Beside verl's own checkpoint, which is left out here (the real one is in tests/e2e)."""
    file = tmp_path / "global_step_4" / "recipe_state.json"

    def save(self):
        assert file.is_file()  # from here on verl takes the checkpoint for whole

    def load(self):
        self.global_steps = 4

    monkeypatch.setattr(PPOTrainerSync, "_save_checkpoint", save)
    monkeypatch.setattr(PPOTrainerSync, "_load_checkpoint", load)
    settings = [
        f"trainer.default_local_dir={tmp_path}",
        "trainer.total_training_steps=40",
        "actor_rollout_ref.actor.policy_loss.loss_mode=dynamic_clip",
        "actor_rollout_ref.actor.policy_loss.schedule=od",
    ]
    first, second = trainer(*settings), trainer(*settings)
    schedules = [
        next(part.schedule for part in one.parts if isinstance(part, ClipSchedulePart))
        for one in (first, second)
    ]
    schedules[0].advance(0, 0.5)
    schedules[0].advance(1, 0.05)
    first.global_steps = 4
    first._save_checkpoint()
    assert [p.name for p in (tmp_path / "global_step_4").iterdir()] == ["recipe_state.json"]
    second._load_checkpoint()
    assert schedules[1].raising
    assert schedules[1].state_dict() == schedules[0].state_dict()
    file.parent.rename(tmp_path / "another")
    with pytest.raises(ValueError, match="holds no state of clip_schedule"):
        second._load_checkpoint()
    with open_dict(second.config):
        second.config.trainer.resume_mode = "resume_path"
        second.config.trainer.resume_from_path = str(tmp_path / "another")
    schedules[1].load_state_dict({**schedules[0].state_dict(), "raising": False})
    second._load_checkpoint()
    assert schedules[1].state_dict() == schedules[0].state_dict()


def test_a_run_that_begins_reads_no_state(tmp_path, monkeypatch):
    monkeypatch.setattr(PPOTrainerSync, "_load_checkpoint", lambda self: None)
    monkeypatch.setattr(recipe.trainer, "load_states", lambda *_: pytest.fail("read"))
    bare_trainer(global_steps=0)._load_checkpoint()


# ---- a resume under other settings ---------------------------------------------------------------

LOSS = "actor_rollout_ref.actor.policy_loss"
SCHEDULE = [f"{LOSS}.loss_mode=dynamic_clip", "trainer.total_training_steps=40"]
CHANGED = [  # overrides before, and what is changed: the sentence names key, new and old value
    ([f"{LOSS}.schedule=od", f"{LOSS}.od_h_init=0.75"], f"{LOSS}.od_h_init", 1.5, 0.75),
    ([f"{LOSS}.schedule=od", f"{LOSS}.od_ratio=0.2"], f"{LOSS}.od_ratio", 0.5, 0.2),
    ([f"{LOSS}.schedule=od"], f"{LOSS}.od_smoothing", 0.5, 0.0),
    ([f"{LOSS}.schedule=id"], f"{LOSS}.phase_split", 0.3, 0.5),
    ([f"{LOSS}.schedule=id"], f"{LOSS}.second_phase", "prose", "printed"),
    ([f"{LOSS}.schedule=id"], f"{LOSS}.schedule", "did", "id"),
    ([f"{LOSS}.schedule=id"], f"{LOSS}.upper_slope", -0.2, -0.25),
    ([f"{LOSS}.schedule=id"], f"{LOSS}.total_steps", 80, 40),
    ([f"{LOSS}.schedule=id"], "actor_rollout_ref.actor.clip_ratio_low", 0.25, 0.2),
    ([f"{LOSS}.schedule=static"], "actor_rollout_ref.actor.clip_ratio_high", 0.28, 0.2),
]


def saved(folder, *overrides: str):
    """The parts' states of a run after two steps, as its checkpoint has them."""
    ours = trainer(f"trainer.default_local_dir={folder}", *SCHEDULE, *overrides)
    (part,) = (part for part in ours.parts if isinstance(part, ClipSchedulePart))
    part.schedule.advance(0, 0.5)
    part.schedule.advance(1, 0.4)
    states.save_states(ours.parts, folder / "recipe_state.json")
    return folder / "recipe_state.json"


@pytest.mark.parametrize(("before", "key", "new", "old"), CHANGED)
def test_a_resume_with_another_setting_of_the_schedule_is_refused(tmp_path, before, key, new, old):
    file = saved(tmp_path, *before)
    states.load_states(trainer(*SCHEDULE, *before).parts, file)
    sentence = rf"^{re.escape(key)} is {new}, but the checkpoint was written with {old}, so .*"
    cure = rf"set it to {old}, or start anew .*trainer.default_local_dir, .*resume_mode=disable"
    with pytest.raises(ValueError, match=sentence + cure):
        states.load_states(trainer(*SCHEDULE, *before, f"{key}={new}").parts, file)


def test_every_setting_that_moves_a_bound_is_compared():
    """A setting that is added later is compared too, unless it is named as one that measures."""
    (part,) = (p for p in trainer(*SCHEDULE).parts if isinstance(p, ClipSchedulePart))
    compared = {key.rpartition(".")[2] for key in part.resume_settings()}
    measures = {"preset", "region_diagnostics", "exact_contribution_freq"}
    assert compared == (settings_of(ClipSettings).keys() - measures) | {
        "clip_ratio_low",
        "clip_ratio_high",
    }


@pytest.mark.parametrize(
    "change",
    [
        [f"{LOSS}.region_diagnostics=false"],
        [f"{LOSS}.exact_contribution_freq=5"],
        ["trainer.test_freq=3", "trainer.save_freq=7"],
    ],
)
def test_what_only_measures_may_change(tmp_path, change):
    file = saved(tmp_path, f"{LOSS}.schedule=id")
    states.load_states(trainer(*SCHEDULE, f"{LOSS}.schedule=id", *change).parts, file)


def test_a_run_with_constant_bounds_may_be_made_longer(tmp_path):
    file = saved(tmp_path, f"{LOSS}.schedule=static")
    longer = trainer(*SCHEDULE, f"{LOSS}.schedule=static", "trainer.total_training_steps=80")
    states.load_states(longer.parts, file)


def test_a_state_that_this_run_has_no_part_for_is_refused(tmp_path):
    """A loss without a schedule would train on with other bounds, in silence."""
    file = saved(tmp_path, f"{LOSS}.schedule=id")
    with pytest.raises(ValueError, match="holds the state of clip_schedule, which this run"):
        states.load_states(trainer().parts, file)


def test_an_older_checkpoint_without_settings_is_said_and_checked_by_its_state(tmp_path, capsys):
    file = saved(tmp_path, f"{LOSS}.schedule=id")
    old = json.loads(file.read_text())
    del old[states.SETTINGS]
    file.write_text(json.dumps(old))
    states.load_states(trainer(*SCHEDULE, f"{LOSS}.schedule=id").parts, file)
    assert "does not say with which settings" in capsys.readouterr().out
    with pytest.raises(ValueError, match="schedule is did, but the checkpoint was written with id"):
        states.load_states(trainer(*SCHEDULE, f"{LOSS}.schedule=did").parts, file)


@pytest.mark.parametrize("text", ["", '{"clip_schedule": {"na', "[]"])
def test_a_state_file_that_is_cut_off_is_one_sentence(tmp_path, text):
    file = tmp_path / "recipe_state.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"state\.json (cannot be read|is not a table).*anew"):
        states.load_states(trainer(*SCHEDULE).parts, file)


def test_a_part_may_have_no_state_at_a_step(tmp_path):
    class Sometimes(Part):
        name = "sometimes"
        state = None

        def state_dict(self):
            return self.state

        def load_state_dict(self, state):
            self.state = state

    class Never(Part):
        name = "never"

    file, part = tmp_path / "recipe_state.json", Sometimes()
    states.save_states([part, Never()], file)
    assert json.loads(file.read_text()) == {"sometimes": None, "_settings": {"sometimes": {}}}
    part.state = {"kept": 1}
    states.load_states([part, Never()], file)
    assert part.state == {"kept": 1}  # nothing was there to be restored
    states.save_states([part], file)
    states.load_states([again := Sometimes(), Never()], file)
    assert again.state == {"kept": 1}
    states.save_states([Never()], file)
    with pytest.raises(ValueError, match="holds no state of sometimes: that checkpoint was"):
        states.load_states([Sometimes()], file)


def test_a_curriculum_of_other_settings_is_refused_by_name(tmp_path):
    write_scores(tmp_path)
    order = ["data.curriculum.order=semantic_entropy", "data.curriculum.stages=1"]
    order += [f"data.curriculum.scores={tmp_path}/scores.parquet", "data.train_batch_size=4"]
    order += ["actor_rollout_ref.actor.ppo_mini_batch_size=2", "algorithm.adv_estimator=grpo"]

    def parts(*overrides):
        made = trainer(*order, *overrides).parts
        for part in made:
            part.prompt_order([PROMPT] * 8)
        return made

    states.save_states(parts(), tmp_path / "recipe_state.json")
    states.load_states(parts(), tmp_path / "recipe_state.json")
    longer = "trainer.total_training_steps=8"
    states.load_states(parts(longer), tmp_path / "recipe_state.json")
    for change, sentence in (
        ("data.curriculum.seed=1", "data.curriculum.seed is 1, but the .* written with 0"),
        ("data.curriculum.epochs_per_stage=6", "data.curriculum.epochs_per_stage is 6, but"),
        ("data.train_batch_size=8", "data.train_batch_size is 8, but the .* written with 4"),
    ):
        with pytest.raises(ValueError, match=sentence):
            states.load_states(parts(change), tmp_path / "recipe_state.json")


def test_every_part_with_a_state_in_this_repository_names_the_settings_it_belongs_to(tmp_path):
    """But the example's, whose coefficient follows its target from wherever it is."""
    write_scores(tmp_path)
    overrides = [f"{LOSS}.loss_mode=dynamic_clip", "data.curriculum.order=pass_rate"]
    overrides += ["data.curriculum.stages=1", "trainer.total_training_steps=1"]
    made = trainer(*overrides, f"data.curriculum.scores={tmp_path}/scores.parquet").parts
    for part in made:
        part.prompt_order([PROMPT] * 4096)
    stateful = [part for part in made if part.state_dict() is not None]
    assert {part.name for part in stateful} == {"clip_schedule", "curriculum"}
    for part in stateful:
        settings = json.loads(json.dumps(dict(part.resume_settings())))
        assert settings and all("." in key for key in settings)
