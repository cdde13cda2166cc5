"""What tests of the report build: a comparison's folder, and a page as its parts."""

import json
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import yaml


def matrix(out, arms, seeds=(0, 1), baseline=None):
    arms = arms if isinstance(arms, dict) else {name: {} for name in arms}
    arms = {name: {"recipe": "r", "preset": "p"} | spec for name, spec in arms.items()}
    values = {"title": "T", "baseline": baseline or next(iter(arms)), "seeds": list(seeds)}
    out.mkdir(exist_ok=True)
    (out / "matrix.yaml").write_text(yaml.safe_dump(values | {"arms": arms}, sort_keys=False))


def run(out, arm, seed, steps, planned=None, config=None, start=0, tail="", **record):
    """steps: {step: {metric: value}}; with `planned`, a record of the start too."""
    folder = out / arm / f"seed{seed}/metrics"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"step": step, "data": data}) + "\n" for step, data in steps.items()]
    (folder / f"{start:03d}.jsonl").write_text("".join(lines) + tail)
    if planned:
        trainer = {"total_training_steps": planned, "experiment_name": f"{arm}-{seed}"}
        config = {"trainer": trainer, "data": {"seed": seed}} | (config or {})
        record = {"commit": "c0ffee", "packages": {"verl": "0.9.1"}, "config": config} | record
        (folder / f"{start:03d}.yaml").write_text(yaml.safe_dump(record))


def evaluated(out, arm, seed, correct_PN, benchmark="b"):
    problems, samples = np.shape(correct_PN)
    folder = out / arm / f"seed{seed}/evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    index, sample = np.divmod(np.arange(problems * samples), samples)
    frame = pd.DataFrame({"index": index, "prompt_id": [f"p{i}" for i in index], "sample": sample})
    frame["correct"] = np.ravel(correct_PN)
    frame["majority_correct"] = np.repeat(np.mean(correct_PN, axis=1) > 0.5, samples)
    frame["tokens"] = 10 * index + sample
    frame["truncated"] = sample == 0
    frame.sample(frac=1, random_state=0).to_parquet(folder / f"{benchmark}.parquet")


class Page(HTMLParser):
    """Its script elements, the text outside of them, and every address."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.text, self.addresses, self.inside = [], "", [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.inside = tag
        if tag == "script":
            self.scripts.append("")
        self.addresses += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1] += data
        elif self.inside != "style":
            self.text += data

    @property
    def drawn(self):
        return json.loads(self.scripts[0])
