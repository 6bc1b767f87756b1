"""Tasks in a live module: the weights of the models that archives rebuild, and the base's again."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from tiny_module import Tiny, state_of

import breadcrumbs
from breadcrumbs import archives
from breadcrumbs.errors import CheckpointError, MismatchError, RecipeError
from breadcrumbs.modules.slots import as_torch
from breadcrumbs.modules.switching import places
from breadcrumbs.modules.switching.turns import Turns
from breadcrumbs.tasks import opened
from breadcrumbs.tasks import pack as pack_one

torch = pytest.importorskip("torch")

NAMES = ["cats", "dogs", "birds"]
METHODS = pytest.mark.parametrize("method", ["tall", "emr", "tsv"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])


def models_of(base: dict[str, np.ndarray], seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Return three models that differ in most weights, in a counter, and not at all in others."""
    rng = np.random.default_rng(seed)
    result = []
    for number in range(3):
        model = {}
        for name, array in base.items():
            step = rng.standard_normal(array.shape) * (rng.random(array.shape) < 0.7)
            step = step if array.dtype.kind == "f" else number
            model[name] = np.asarray(array + step).astype(array.dtype)
        model["norm.bias"] = base["norm.bias"]
        result.append(model)
    return result


@pytest.fixture
def family(tmp_path):
    """A module, the base that it holds, and models of three tasks."""
    module = Tiny()
    base = state_of(module)
    return module, base, models_of(base)


def compress(family, tmp_path, method="tall", **more):
    _, base, models = family
    path = tmp_path / f"{method}.safetensors"
    archives.compress(base, models, path, names=NAMES, method=method, **more)
    return path


def bits_of(module) -> dict[str, bytes]:
    return {
        name: tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        for name, tensor in module.state_dict().items()
    }


def loaded(base, path, task, dtype) -> dict[str, bytes]:
    """Return the bits of a module into which a task's checkpoint is loaded as usual."""
    with archives.model(path, task, base) as found:
        state = {name: as_torch(found[name]) for name in found}
    state["last.weight"] = state["embed.weight"]
    module = Tiny(1)
    module.load_state_dict(state)
    return bits_of(module.to(dtype))


@METHODS
@DTYPES
def test_the_module_is_the_tasks_and_then_the_base_again(method, dtype, family, tmp_path):
    path, (module, base, _) = compress(family, tmp_path, method), family
    module.to(dtype)
    before = bits_of(module)
    memory = [parameter.data_ptr() for parameter in module.parameters()]
    with breadcrumbs.switch(module, path, base=base) as tasks:
        assert tasks.tasks == tuple(NAMES) and tasks.task is None
        for task in ("cats", "birds", "cats", None, "dogs", "dogs"):
            tasks.put(task)
            assert tasks.task == task
            assert bits_of(module) == (loaded(base, path, task, dtype) if task else before)
        with tasks.using("birds") as inside:
            assert inside is module and bits_of(module) == loaded(base, path, "birds", dtype)
            with tasks.using("cats"):
                assert bits_of(module) == loaded(base, path, "cats", dtype)
            assert bits_of(module) == loaded(base, path, "birds", dtype)
        assert bits_of(module) == loaded(base, path, "dogs", dtype) and tasks.task == "dogs"
    assert bits_of(module) == before
    assert memory == [parameter.data_ptr() for parameter in module.parameters()]
    assert module.last.weight is module.embed.weight


@METHODS
def test_a_base_in_a_file_is_found_again(method, family, tmp_path):
    module, base, models = family
    torch.save({name: as_torch(array) for name, array in base.items()}, tmp_path / "base.pt")
    path = tmp_path / "t.safetensors"
    archives.compress(str(tmp_path / "base.pt"), models, path, names=NAMES, method=method)
    with breadcrumbs.switch(module, path) as tasks:
        tasks.put("dogs")
        assert bits_of(module) == loaded(base, path, "dogs", torch.float32)
    (tmp_path / "base.pt").unlink()
    with pytest.raises(CheckpointError, match="its base is not where it was"):
        breadcrumbs.switch(module, path)


def test_pieces_of_any_size_give_the_same(family, tmp_path):
    path, (module, base, _) = compress(family, tmp_path), family
    state, pieces = module.state_dict(), []
    with archives.open_archive(path) as archive:
        names = list(archive.values)
        for name in names:
            mine = [number for number in range(len(NAMES)) if name in archive.names(number)]
            packed = {archive.tasks[number]: archive.bits(number, name) for number in mine}
            pieces += places.masked(state[name], archive.values[name], packed, piece=8)
    assert len(pieces) == 7  # 20, 16, and twice 4 weights
    for task in NAMES:
        for piece in pieces:
            piece.to(task)
        found, expected = bits_of(module), loaded(base, path, task, torch.float32)
        assert all(found[name] == expected[name] for name in names)


def test_weights_that_lie_otherwise_in_memory(family, tmp_path):
    path, (module, base, _) = compress(family, tmp_path), family
    before = bits_of(module)
    inner = module.inner.weight
    inner.data = inner.data.T.contiguous().T
    assert not inner.is_contiguous()
    with breadcrumbs.switch(module, path, base=base) as tasks:
        tasks.put("cats")
        assert bits_of(module) == loaded(base, path, "cats", torch.float32)
        assert not inner.is_contiguous()
    assert bits_of(module) == before


def test_autograd_sees_that_weights_changed(family, tmp_path):
    path, (module, base, _) = compress(family, tmp_path), family
    with breadcrumbs.switch(module, path, base=base) as tasks:
        loss = module.eval()(torch.tensor([0, 1])).pow(2).sum()
        tasks.put("cats")
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


# --- task files ---


def pack(family, tmp_path, **more) -> list[str]:
    _, base, models = family
    paths = [str(tmp_path / f"{name}.safetensors") for name in NAMES]
    for name, model, path in zip(NAMES, models, paths, strict=True):
        pack_one(base, model, path, name=name, force=True, **more)
    return paths


def unpacked(base, path, dtype) -> dict[str, bytes]:
    """Return the bytes of a module into which what a task file stands for is loaded as usual."""
    with breadcrumbs.open(base) as under:
        found = opened(under, path)
        state = {name: as_torch(found[name]) for name in found}
    state.setdefault("last.weight", state["embed.weight"])
    module = Tiny(1)
    module.load_state_dict(state)
    return bits_of(module.to(dtype))


@pytest.mark.parametrize("transform", ["breadcrumbs", "none"])
@DTYPES
def test_task_files_go_in_and_out(transform, dtype, family, tmp_path):
    module, base, models = family
    parameters = {"beta": 0.3, "gamma": 0.9} if transform == "breadcrumbs" else {}
    paths = pack(family, tmp_path, transform=transform, **parameters)
    module.to(dtype)
    before = bits_of(module)
    wanted = {name: unpacked(base, path, dtype) for name, path in zip(NAMES, paths, strict=True)}
    assert len({str(sorted(bits.items())) for bits in [before, *wanted.values()]}) == 4
    if transform == "none" and dtype == torch.float32:
        assert wanted["cats"]["inner.weight"] == models[0]["inner.weight"].tobytes()
    with breadcrumbs.switch(module, paths, base=base) as tasks:
        assert tasks.tasks == tuple(NAMES)
        for task in ("cats", "birds", None, "dogs", "cats"):
            tasks.put(task)
            assert bits_of(module) == (wanted[task] if task else before)
    assert bits_of(module) == before
    with breadcrumbs.switch(module, {"one": paths[1]}, base=base) as tasks:
        tasks.put("one")
        assert bits_of(module) == wanted["dogs"]
        assert repr(tasks) == "<Switch of Tiny: one is in, of one>"
        assert "<td>one</td><td>True</td>" in tasks._repr_html_()
    with breadcrumbs.switch(module, paths[2], base=base) as tasks, tasks.using("birds"):
        assert bits_of(module) == wanted["birds"]
    assert bits_of(module) == before


def test_weights_that_lie_otherwise_are_read_from_task_files(family, tmp_path):
    module, base, _ = family
    paths, before = pack(family, tmp_path), bits_of(module)
    module.inner.weight.data = module.inner.weight.data.T.contiguous().T
    with breadcrumbs.switch(module, paths, base=base) as tasks:
        tasks.put("cats")
        assert bits_of(module) == unpacked(base, paths[0], torch.float32)
    assert bits_of(module) == before


@pytest.mark.parametrize("stop", range(9))
def test_a_switch_of_task_files_that_stops_anywhere_is_made_good(
    stop, family, tmp_path, monkeypatch
):
    module, base, _ = family
    paths, before = pack(family, tmp_path, transform="none"), bits_of(module)
    tasks = breadcrumbs.switch(module, paths, base=base)
    flip, left = places.flip_at, iter(range(stop))

    def stops(*arguments):
        if next(left, None) is None:
            raise MemoryError
        flip(*arguments)

    tasks.put("dogs")
    monkeypatch.setattr(places, "flip_at", stops)
    with pytest.raises(MemoryError):
        tasks.put("cats")
    monkeypatch.setattr(places, "flip_at", flip)
    tasks.put("cats")
    assert bits_of(module) == unpacked(base, paths[0], torch.float32)
    tasks.put(None)
    assert bits_of(module) == before


def test_task_files_that_do_not_fit(family, tmp_path):
    module, base, models = family
    paths = pack(family, tmp_path)
    with pytest.raises(RecipeError, match=r"is another task 'cats'\. Name them"):
        breadcrumbs.switch(module, [paths[0], paths[0]], base=base)
    with pytest.raises(RecipeError, match="no tasks are given"):
        breadcrumbs.switch(module, [], base=base)
    with pytest.raises(MismatchError, match="another base"):
        breadcrumbs.switch(module, paths, base=models[0])
    with pytest.raises(CheckpointError, match="its base is not where it was"):
        breadcrumbs.switch(module, paths)
    both = base | {"last.weight": base["embed.weight"]}
    untied = models[0] | {"last.weight": models[0]["embed.weight"] + 1}
    pack_one(both, untied, paths[0], transform="none", force=True)
    with pytest.raises(MismatchError, match=r"one weight in the module"):
        breadcrumbs.switch(module, paths[0], base=both)


# --- what does not fit ---


def test_a_module_that_does_not_hold_the_base_is_refused(family, tmp_path):
    path, (_, base, models) = compress(family, tmp_path), family
    with pytest.raises(MismatchError, match="module holds other values than the checkpoint"):
        breadcrumbs.switch(Tiny(3), path, base=base)
    with pytest.raises(MismatchError, match="is not the base of"):
        breadcrumbs.switch(Tiny(), path, base=models[0])


def test_a_module_may_have_more_than_the_base(family, tmp_path):
    path, (module, base, _) = compress(family, tmp_path), family
    both = torch.nn.ModuleDict({"encoder": module, "head": torch.nn.Linear(3, 2)})
    before = bits_of(both)
    with breadcrumbs.switch(both, path, base=base) as tasks:
        tasks.put("cats")
        wanted = loaded(base, path, "cats", torch.float32)
        found = bits_of(both)
        assert all(found[f"encoder.{name}"] == bits for name, bits in wanted.items())
        assert found["head.weight"] == before["head.weight"]


def test_what_the_module_lacks_is_named_unless_ignored(family, tmp_path):
    module, base, models = family
    base, models = base | {"head": np.ones(3, np.float32)}, [dict(model) for model in models]
    for number, model in enumerate(models):
        model["head"] = np.full(3, number, np.float32)
        model["only.mine"] = np.ones(2, np.float32)
    path = compress((module, base, models), tmp_path)
    with pytest.raises(MismatchError, match=r"no place for 'head', 'only\.mine', which tasks"):
        breadcrumbs.switch(module, path, base=base)
    with breadcrumbs.switch(module, path, base=base, ignore=["head", "only.*"]) as tasks:
        tasks.put("cats")


def test_one_weight_cannot_become_two(family, tmp_path):
    module, base, models = family
    tied = base | {"last.weight": base["embed.weight"]}
    both = [model | {"last.weight": model["embed.weight"]} for model in models]
    path = compress((module, tied, both), tmp_path)
    with breadcrumbs.switch(module, path, base=tied) as tasks:
        tasks.put("cats")
        assert bits_of(module) == loaded(tied, path, "cats", torch.float32)
    both[1]["last.weight"] = both[1]["last.weight"] + 1
    path = compress((module, tied, both), tmp_path, force=True)
    with pytest.raises(MismatchError, match=r"one weight in the module: 'embed\.weight = last"):
        breadcrumbs.switch(module, path, base=tied)


def test_unknown_tasks_and_archives_that_were_altered(family, tmp_path):
    path, (module, base, _) = compress(family, tmp_path), family
    with breadcrumbs.switch(module, path, base=base) as tasks:
        for ask in (tasks.put, lambda task: tasks.using(task).__enter__()):
            with pytest.raises(RecipeError, match=r"has no task 'cat'\. Did you mean 'cats'"):
                ask("cat")
    data = bytearray(path.read_bytes())
    data[-27 * 32] ^= 1  # of a mask, before the 26 digests
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="not what was written"):
        breadcrumbs.switch(module, path, base=base)


def test_an_interrupted_change_is_made_good(family, tmp_path, monkeypatch):
    path, (module, base, _) = compress(family, tmp_path), family
    before = bits_of(module)
    tasks = breadcrumbs.switch(module, path, base=base)
    change, left = places.Masked.to, iter(range(2))

    def stops(self, task):
        if next(left, None) is None:
            raise KeyboardInterrupt
        change(self, task)

    monkeypatch.setattr(places.Masked, "to", stops)
    with pytest.raises(KeyboardInterrupt):
        tasks.put("cats")
    monkeypatch.setattr(places.Masked, "to", change)
    assert bits_of(module) != before
    tasks.put("cats")
    assert bits_of(module) == loaded(base, path, "cats", torch.float32)
    tasks.put(None)
    assert bits_of(module) == before


# --- threads ---


def test_threads_each_have_their_task(family, tmp_path):
    path, (module, base, _) = compress(family, tmp_path), family
    before = bits_of(module)
    wanted = {task: loaded(base, path, task, torch.float32) for task in NAMES}
    wrong, done = [], []

    def serve(seed: int) -> None:
        for number in np.random.default_rng(seed).integers(0, 4, 30):
            task = [*NAMES, None][number]
            with tasks.using(task):
                first, second = bits_of(module), bits_of(module)
            if not first == second == (wanted[task] if task else before):
                wrong.append(task)
        done.append(seed)

    with breadcrumbs.switch(module, path, base=base) as tasks:
        threads = [threading.Thread(target=serve, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bits_of(module) == before  # what was in before
    assert sorted(done) == [0, 1, 2, 3] and not wrong


class Log:
    """Turns whose changes are noted."""

    def __init__(self):
        self.changes: list[str | None] = []
        self.turns = Turns(self.changes.append)


def started(log: Log, task: str, go: threading.Event) -> tuple[threading.Thread, threading.Event]:
    """Start a thread that uses a task until it may go on; wait until it is in or in the queue."""
    inside = threading.Event()
    waiting = len(log.turns._queue)

    def use() -> None:
        with log.turns.using(task):
            inside.set()
            assert go.wait(10)

    thread = threading.Thread(target=use)
    thread.start()
    while not inside.is_set() and len(log.turns._queue) == waiting:
        pass
    return thread, inside


def test_threads_of_one_task_go_together_and_others_in_order():
    log, go = Log(), threading.Event()
    first, first_in = started(log, "a", go)
    second, second_in = started(log, "a", go)
    assert first_in.is_set() and second_in.is_set() and log.changes == ["a"]
    other, other_in = started(log, "b", go)
    late, late_in = started(log, "a", go)  # comes after b: nobody waits for ever
    assert not other_in.is_set() and not late_in.is_set()
    go.set()
    for thread in (first, second, other, late):
        thread.join(10)
    assert other_in.is_set() and late_in.is_set()
    assert log.changes == ["a", "b", "a", None]  # the base comes back only when nobody waits


def test_putting_waits_for_those_who_use_the_module():
    log, go = Log(), threading.Event()
    thread, _ = started(log, "a", go)
    put = threading.Thread(target=log.turns.put, args=("b",))
    put.start()
    put.join(0.05)
    assert put.is_alive() and log.changes == ["a"]
    go.set()
    put.join(10)
    thread.join(10)
    assert log.changes == ["a", "b"] and log.turns.rest == "b"


def test_what_would_wait_for_itself_is_refused():
    log, go = Log(), threading.Event()
    with log.turns.using("a"):
        with pytest.raises(RecipeError, match="Leave its context first"):
            log.turns.put("b")
        thread, inside = started(log, "a", go)
        assert inside.is_set()
        with pytest.raises(RecipeError, match="other threads use 'a' with this one"):
            log.turns.using("b").__enter__()
        with log.turns.using("a"):
            go.set()
            thread.join(10)
        assert log.changes == ["a"]
    assert log.changes == ["a", None]


# --- kernels ---


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 64, 1003])
def test_flipping_on_the_cpu_and_elsewhere_is_the_same(size, n):
    rng = np.random.default_rng(n)
    weights, flips = (np.frombuffer(rng.bytes(n * size), f"u{size}").copy() for _ in range(2))
    packed = np.frombuffer(rng.bytes(-(-n // 8)), np.uint8)
    held = np.unpackbits(packed)[:n].astype(bool)
    expected = np.where(held, weights ^ flips, weights)
    signed = weights.astype(f"i{size}", copy=True)
    given = torch.from_numpy(signed), as_torch(flips.view(f"i{size}")), as_torch(packed)
    places.flip_masked(*given, spread=64)
    assert signed.tobytes() == expected.tobytes()
    again = weights.copy()
    places.flip_masked(again, flips, packed)
    assert again.tobytes() == expected.tobytes()
    at = rng.permutation(n)[: n // 2]
    expected = weights.copy()
    expected[at] ^= flips[at]
    found = weights.copy()
    places.flip_at(found, at.astype(np.uint32), flips[at])
    signed = weights.view(f"i{size}").copy()
    places.flip_at(
        torch.from_numpy(signed), torch.from_numpy(at), as_torch(flips[at].view(f"i{size}"))
    )
    assert found.tobytes() == signed.tobytes() == expected.tobytes()
