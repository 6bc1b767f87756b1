"""Causal models through lm-eval, where it is installed: a tiny random Llama, a task in a file."""

from __future__ import annotations

import json

import foundation_tasks as small
import numpy as np
import pytest

import breadcrumbs
from breadcrumbs.errors import MissingExtraError, SplitError, SuiteError
from breadcrumbs.evaluate import suite as suites
from breadcrumbs.evaluate.data import lm_eval
from breadcrumbs.evaluate.foundations import make
from breadcrumbs.modules.slots import Slots

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("one_thread")

QUESTIONS = [
    {"question": f"what is {a} and {b}", "choices": ["red", "a big dog", "blue sky"], "gold": g}
    for number, (a, b, g) in enumerate(
        [(a, b, (a * 7 + b * 3) % 3) for a in range(6) for b in range(5)]
    )
]
SIZES = {"train": 8, "validation": 10, "test": 12}


def test_without_lm_eval_it_says_what_to_install(monkeypatch):
    def absent(name):
        raise lm_eval.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(lm_eval.importlib.metadata, "version", absent)
    with pytest.raises(MissingExtraError, match=r'pip install "\.\[evaluate\]" "lm-eval'):
        lm_eval.task("one", "lm-eval:one.yaml")
    monkeypatch.setattr(lm_eval.importlib.metadata, "version", lambda name: "0.4.2")
    with pytest.raises(MissingExtraError, match=r"lm-eval 0\.4\.2 is too old"):
        lm_eval.task("one", "lm-eval:one.yaml")


def write_task(folder, name="small", sizes=SIZES, **more):
    """Write a task of lm-eval, and its rows as JSON lines, in splits; return the YAML's path."""
    pytest.importorskip("lm_eval")
    files, start = {}, 0
    for split, size in sizes.items():
        files[split] = str(folder / f"{name}-{split}.jsonl")
        rows = QUESTIONS[start : start + size]
        start += size
        (folder / f"{name}-{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "cache")},
        "output_type": "multiple_choice",
        "doc_to_text": "question: {{question}} answer:",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    keys = {"train": "training_split", "validation": "validation_split", "test": "test_split"}
    config |= {keys[split]: split for split in sizes} | more
    (folder / f"{name}.yaml").write_text(json.dumps(config))
    return str(folder / f"{name}.yaml")


@pytest.fixture(scope="module")
def yaml(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("task"))


def naive_correct(base, questions, state=None):
    """Return whether the likeliest choice is right, for one question and choice at a time."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    if state is not None:
        model.load_state_dict({n: torch.from_numpy(a) for n, a in state.items()}, strict=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    right = []
    for row in questions:
        context = tokenizer(f"question: {row['question']} answer:")["input_ids"]
        scores = []
        for choice in row["choices"]:
            tokens = tokenizer(choice)["input_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([context + tokens])).logits[0].log_softmax(-1)
            places = range(len(context) - 1, len(context) + len(tokens) - 1)
            scores.append(sum(logits[p, t].item() for p, t in zip(places, tokens, strict=True)))
        right.append(int(np.argmax(scores)) == row["gold"])
    return np.array(right)


SPLIT_ROWS = {"validation": QUESTIONS[8:18], "test": QUESTIONS[18:30]}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_scores_are_those_of_one_choice_at_a_time(llama, yaml, split):
    base, foundation = llama(), make("causal")
    module = foundation.load(base)
    task = lm_eval.task("mine", f"lm-eval:{yaml}")
    assert task.metric == "acc"
    hits = foundation.hits(module, task, split, 4)
    assert hits.dtype == bool
    assert hits.tolist() == naive_correct(base, SPLIT_ROWS[split]).tolist()
    assert 0 < hits.mean() < 1


@pytest.mark.parametrize("tied", [False, True])
def test_a_state_changes_the_scores_as_loading_it_does(llama, yaml, tied):
    base, foundation = llama(tied=tied), make("causal")
    module = foundation.load(base)
    with breadcrumbs.open(base) as it:
        slots = Slots(module, it)
    task = lm_eval.task("mine", yaml)
    seen = set()
    for seed in range(4):
        changed = small.shaken(small.state(base), 0.5, seed)
        slots.put(changed)
        hits = foundation.hits(module, task, "test", 64).tolist()
        assert hits == naive_correct(base, QUESTIONS[18:], changed).tolist()
        seen.add(tuple(hits))
    assert len(seen) > 1


def test_the_base_keeps_its_own_dtype(llama, yaml):
    base, foundation = llama(torch.bfloat16), make("causal")
    module = foundation.load(base)
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
    with breadcrumbs.open(base) as it:
        Slots(module, it).put(small.shaken(small.state(base), 0.3))
    assert len(foundation.hits(module, lm_eval.task("mine", yaml), "test", 8)) == 12


def test_test_rows_are_not_for_tuning(llama, yaml):
    foundation = make("causal")
    module = foundation.load(llama())
    task = lm_eval.task("mine", yaml).tuning()
    assert len(foundation.hits(module, task, "validation", 8)) == 10
    with pytest.raises(SplitError, match="test rows were asked for"):
        foundation.hits(module, task, "test", 8)


def test_rows_are_the_documents_of_the_split(yaml):
    task = lm_eval.task("mine", yaml)
    for split, start, stop in (("train", 0, 8), ("validation", 8, 18), ("test", 18, 30)):
        assert [json.loads(row) for row in task.rows(split).inputs] == QUESTIONS[start:stop]
    digests = {task.rows(split).digest for split in ("train", "validation", "test")}
    assert len(digests) == 3
    assert lm_eval.task("mine", yaml).rows("test").digest == task.rows("test").digest


def test_the_digest_is_of_all_that_scores_depend_on(yaml, tmp_path):
    plain = lm_eval.task("mine", yaml).rows("test").digest
    same = lm_eval.task("another name", write_task(tmp_path, "copy")).rows("test").digest
    assert same == plain
    text = write_task(tmp_path, "text", doc_to_text="{{question}}?")
    shots = {"shots": 2}
    others = {
        lm_eval.task("mine", text).rows("test").digest,
        lm_eval.task("mine", yaml, head=shots).rows("test").digest,
        lm_eval.task("mine", yaml, head={"shots": 3}).rows("test").digest,
        lm_eval.task("mine", yaml, head=shots, splits={"train": "train[:5]"}).rows("test").digest,
    }
    assert len(others | {plain}) == 5


def test_shots_come_out_of_training_rows(yaml):
    reader = lm_eval.task("mine", yaml, head={"shots": 3}).read
    made = reader.task("test")
    made.build_all_requests(rank=0, world_size=1)
    train = [row["question"] for row in QUESTIONS[:8]]
    rest = [row["question"] for row in QUESTIONS[8:]]
    for instance in made.instances:
        context, _ = instance.args
        assert sum(f"question: {q} " in context for q in train) == 3
        assert sum(f"question: {q} " in context for q in rest) == 1


def test_one_split_is_for_the_test_unless_the_suite_says_more(tmp_path):
    one = write_task(tmp_path, "one", {"train": 8, "validation": 10})
    task = lm_eval.task("mine", one)
    assert [json.loads(row) for row in task.rows("test").inputs] == QUESTIONS[8:18]
    with pytest.raises(SplitError, match=r"has no validation rows: .*splits: \{validation: "):
        task.rows("validation")

    told = {"validation": "train[-3:]", "train": "train[:-3]"}
    task = lm_eval.task("mine", one, splits=told)
    found = {split: [json.loads(r) for r in task.rows(split).inputs] for split in told}
    assert found == {"validation": QUESTIONS[5:8], "train": QUESTIONS[:5]}

    halves = {"validation": "validation[:50%]", "test": "validation[50%:]"}
    task = lm_eval.task("mine", one, splits=halves)
    assert [json.loads(row) for row in task.rows("validation").inputs] == QUESTIONS[8:13]
    assert [json.loads(row) for row in task.rows("test").inputs] == QUESTIONS[13:18]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"splits": {"valid": "train"}}, r"no 'valid'. There are train|Did you mean 'validation'"),
        ({"splits": {"validation": 3}}, "validation: 3 is not a text like"),
        (
            {"splits": {"validation": "tset"}},
            r"'tset' is not a part of its data. Did you mean 'test'",
        ),
        ({"splits": {"validation": "train[a:]"}}, "is not a part of its data"),
        ({"splits": {"validation": "train"}}, r"train rows \(train\) and validation rows.*overlap"),
        ({"splits": {"validation": "test[5:]"}}, r"validation rows \(test\[5:\]\) and test rows"),
        ({"metric": "acc_nrom"}, r"no 'acc_nrom'. Did you mean 'acc_norm'\?"),
        ({"head": {"shot": 3}}, r"no 'shot'. Did you mean 'shots'"),
        ({"head": {"shots": -1}}, "shots: -1 is not possible. Give 0 or more"),
    ],
)
def test_what_a_task_cannot_be(yaml, how, message):
    with pytest.raises(SuiteError, match=message):
        lm_eval.task("mine", yaml, **how)


def test_tasks_that_are_not_there(yaml, tmp_path):
    with pytest.raises(SuiteError, match=r"task 'mine': lm-eval cannot load .*nowhere\.yaml"):
        lm_eval.task("mine", "nowhere.yaml", folder=tmp_path)
    perplexity = write_task(tmp_path, "worse", metric_list=[
        {"metric": "brier_score", "aggregation": "brier_score", "higher_is_better": False}
    ])  # fmt: skip
    with pytest.raises(SuiteError, match="of 'brier_score', lower is better"):
        lm_eval.task("mine", perplexity)
    bare = write_task(tmp_path, "bare", {"validation": 3, "test": 4})
    with pytest.raises(SuiteError, match="shots come out of training rows, and it has none"):
        lm_eval.task("mine", bare, head={"shots": 1})


def test_another_metric_and_its_filter(llama, yaml):
    foundation = make("causal")
    module = foundation.load(llama())
    norm = lm_eval.task("mine", yaml, metric="acc_norm,none")
    assert len(foundation.hits(module, norm, "test", 8)) == 12
    other = lm_eval.task("mine", yaml, metric="acc,strict")
    with pytest.raises(SuiteError, match=r"there is no such filter\. Give one of acc,none"):
        foundation.hits(module, other, "test", 8)


def test_a_metric_that_is_no_count(llama, tmp_path):
    foundation = make("causal")
    module = foundation.load(llama())
    yaml = write_task(tmp_path, "f1", metric_list=[
        {"metric": "f1", "aggregation": "f1", "higher_is_better": True}
    ], doc_to_choice=["red", "blue"], doc_to_target="{{[0, 1, 1][gold]}}")  # fmt: skip
    task = lm_eval.task("mine", yaml)
    with pytest.raises(SuiteError, match=r"metric 'f1' is not a count of right answers\. Give"):
        foundation.hits(module, task, "test", 8)


def test_lm_eval_asks_its_tasks_itself(llama, yaml):
    foundation, task = make("causal"), lm_eval.task("mine", yaml)
    module = foundation.load(llama())
    assert foundation.answers(task)
    assert foundation.head(module, task) == {}
    for call in (
        lambda: foundation.prepare(task, task.rows("test"), 2),
        lambda: foundation.loss(module, {}, None),
    ):
        with pytest.raises(SuiteError, match="lm-eval asks its tasks; they are not trained on"):
            call()


def test_a_suite_of_lm_evals_tasks_from_end_to_end(llama, tmp_path):
    from click.testing import CliRunner

    from breadcrumbs.cli.group import main

    base = llama()
    write_task(tmp_path, "one")
    other = write_task(tmp_path, "two", {"train": 12, "test": 9})
    changed = small.shaken(small.state(base), 0.5)
    tuned = str(tmp_path / "tuned")
    breadcrumbs.merge(base, [changed], method="task_arithmetic", alpha=1, output=tuned)
    (tmp_path / "suite.yaml").write_text(
        json.dumps(
            {
                "foundation": "causal",
                "base": base,
                "tasks": [
                    {"task": "one", "data": "lm-eval:one.yaml", "finetuned": "tuned"},
                    {"task": "two", "data": f"lm-eval:{other}", "splits": {"test": "train[5:]"}
                     | {"train": "train[:5]"}, "head": {"shots": 1}, "metric": "acc_norm"},
                ],
            }
        )
    )  # fmt: skip
    results = str(tmp_path / "results.sqlite")
    given = ["evaluate", str(tmp_path / "suite.yaml"), tuned]
    given += ["--results", results, "--workers", "1", "--json", "--precision", "float32"]
    found = CliRunner().invoke(main, given)
    assert found.exit_code == 0, found.output
    rows = {(row["label"], row["task"]): row for row in json.loads(found.stdout)}
    row = rows[tuned, "one"]
    right = naive_correct(base, QUESTIONS[18:], changed)
    assert (row["correct"], row["items"], row["metric"]) == (right.sum(), 12, "acc")
    assert rows["base", "one"]["correct"] == naive_correct(base, QUESTIONS[18:]).sum()
    assert rows["base", "two"]["items"] == 7


def test_a_name_of_lm_evals_is_no_path_whatever_lies_beside_the_suite(llama, tmp_path):
    pytest.importorskip("lm_eval")
    (tmp_path / "no_such_task").mkdir()
    tasks = [{"task": "one", "data": "lm-eval:no_such_task"}]
    suite = {"foundation": "causal", "base": llama(), "tasks": tasks}
    (tmp_path / "suite.yaml").write_text(json.dumps(suite))
    with pytest.raises(SuiteError, match="lm-eval has no task 'no_such_task'"):
        suites.load(tmp_path / "suite.yaml")
