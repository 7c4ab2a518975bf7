import functools
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrjax
from lrjax._checkpoints import open_checkpoints, recorded
from lrjax._checkpoints.folders import as_folder

pytest.importorskip("orbax.checkpoint")

IDENTITY = {"steps": 100, "rate": 0.1, "lanes": ["a", None], "data": "f32[3]"}


def save(folder, *steps, tree=None, identity=IDENTITY):
    with open_checkpoints(folder, identity) as checkpoints:
        for step in steps:
            content = {"count": jnp.int32(step)} if tree is None else tree
            checkpoints.save(step, content, {"loss": np.full(step, step, np.float32)})


def restore(folder, like=None, identity=IDENTITY):
    with open_checkpoints(folder, identity) as checkpoints:
        return checkpoints.restore({"count": jnp.int32(0)} if like is None else like)


def shapes(tree):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), tree)


def raw(array):
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.asarray(array).tobytes()


def assert_same(given, expected):
    assert jax.tree.structure(given) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(given), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape, raw(a)) == (b.dtype, b.shape, raw(b))
        assert isinstance(a, jax.Array) == isinstance(b, jax.Array)


# What comes back


def test_the_newest_of_the_last_two_comes_back(tmp_path):
    folder = tmp_path / "new" / "folder"
    assert restore(folder) is None
    save(folder, 3, 5, 9)
    step, tree, arrays = restore(folder)
    assert (step, int(tree["count"])) == (9, 9)
    np.testing.assert_array_equal(arrays["loss"], np.full(9, 9, np.float32))
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    assert names == ["5", "5.json", "9", "9.json", "identity.json"]


def test_a_step_is_written_once(tmp_path):
    save(tmp_path, 3, 3)
    save(tmp_path, 3, 4, 4)
    assert restore(tmp_path).step == 4


TREES = {
    "params": {"w": jnp.linspace(0, 1, 6).reshape(2, 3), "b": jnp.ones(3, jnp.bfloat16)},
    "nan": [jnp.array([jnp.nan, jnp.inf, -0.0, 1e-40])],
    "small": (jnp.ones(3, jnp.float16), jnp.ones(3, jnp.float8_e4m3fn), jnp.ones(2, jnp.int4)),
    "integers": {"count": jnp.int32(2**31 - 1), "bits": jnp.arange(5, dtype=jnp.uint8)},
    "bools": [jnp.array([True, False])],
    "keys": {"one": jax.random.key(3), "many": jax.random.split(jax.random.key(1, impl="rbg"), 3)},
    "optimizer": optax.adamw(1e-3).init({"w": jnp.ones((2, 2), jnp.bfloat16)}),
    "lane optimizer": lrjax.onecycle_sgd(0.1, 10).init({"w": jnp.ones(2)}),
    "numpy": {
        "x": np.arange(4.0),
        "scalar": np.array(3, np.int64),
    },
    "nothing": {},
    "no arrays": ({}, None, optax.EmptyState()),
    "empty": {"a": jnp.zeros((0, 3), jnp.bfloat16), "b": jnp.ones(1), "c": np.zeros((2, 0))},
    "one": jnp.arange(3),
}


@pytest.mark.parametrize("name", TREES)
def test_trees_come_back_bit_for_bit(name, tmp_path):
    save(tmp_path, 1, tree=TREES[name])
    assert_same(restore(tmp_path, TREES[name]).tree, TREES[name])


def test_values_come_from_the_checkpoint(tmp_path):
    tree = {"params": jnp.arange(4.0), "key": jax.random.key(1), "host": np.arange(2), "count": 3}
    save(tmp_path, 1, tree=tree)
    like = {"params": jnp.zeros(4), "key": jax.random.key(0), "host": np.zeros(2, int), "count": 0}
    expected = {**tree, "count": np.array(3)}
    assert_same(restore(tmp_path, like).tree, expected)


def test_arrays_of_any_lengths_and_names(tmp_path):
    arrays = {
        "loss": np.array([[1, np.nan]], np.float32),
        "metrics/top 1 (%)": np.zeros((3, 0), np.float32),
        "step": np.array(7),
        "file": np.arange(3, dtype=np.uint8),
    }
    with open_checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save(1, {}, {})
        checkpoints.save(2, {}, arrays)
    restored = restore(tmp_path, {}).arrays
    assert list(restored) == list(arrays)
    assert_same(restored, arrays)


@pytest.mark.parametrize("before", [1, 4])
@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_checkpoint_is_restored_onto_other_devices(before, after, tmp_path):
    def placed(devices):
        mesh = jax.make_mesh((devices,), ("lanes",), devices=jax.devices()[:devices])
        return jax.NamedSharding(mesh, jax.P("lanes"))

    def tree(sharding):
        keys = jax.random.split(jax.random.key(0), 8)
        tree = {"w": jnp.arange(24.0).reshape(8, 3), "keys": keys, "none": jnp.zeros((8, 0))}
        return jax.device_put(tree, sharding)

    save(tmp_path, 1, tree=tree(placed(before)))
    like = shapes(tree(placed(after)))
    restored = restore(tmp_path, like).tree
    assert_same(restored, tree(placed(after)))
    for leaf in jax.tree.leaves(restored):
        assert leaf.sharding.is_equivalent_to(placed(after), leaf.ndim)


def test_shapes_without_a_sharding_go_to_the_first_device(tmp_path):
    save(tmp_path, 1, tree={"w": jax.device_put(jnp.ones(3), jax.devices()[2])})
    restored = restore(tmp_path, {"w": jax.ShapeDtypeStruct((3,), jnp.float32)})
    assert restored.tree["w"].devices() == {jax.devices()[0]}


def test_training_goes_on_after_a_restoration(tmp_path):
    save(tmp_path, 1, 2)
    with open_checkpoints(tmp_path, IDENTITY) as checkpoints:
        assert checkpoints.step == 2
        checkpoints.save(3, {"count": jnp.int32(3)}, {})
    assert restore(tmp_path).step == 3


# Damage


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def scramble(path):
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))


def files_of(folder, step=9):
    files = [path for path in sorted((folder / str(step)).rglob("*")) if path.is_file()]
    return [folder / f"{step}.json", *files]


@pytest.mark.parametrize("damage", [truncate, scramble])
def test_any_damaged_file_is_reported_and_the_checkpoint_before_used(damage, tmp_path):
    original, folder = tmp_path / "original", tmp_path / "damaged"
    save(original, 5, 9)
    for file in files_of(original):
        if not file.stat().st_size:
            continue
        shutil.copytree(original, folder)
        damage(folder / file.relative_to(original))
        with pytest.warns(UserWarning, match=f"{folder}/9 is damaged; the one before it, 5,"):
            step, tree, arrays = restore(folder)
        assert (step, int(tree["count"]), len(arrays["loss"])) == (5, 5, 5)
        shutil.rmtree(folder)


def test_any_missing_file_is_reported_and_the_checkpoint_before_used(tmp_path):
    original, folder = tmp_path / "original", tmp_path / "damaged"
    save(original, 5, 9)
    for file in files_of(original)[1:]:
        shutil.copytree(original, folder)
        (folder / file.relative_to(original)).unlink()
        with pytest.warns(UserWarning, match="9 is damaged"):
            assert restore(folder).step == 5
        shutil.rmtree(folder)
    shutil.copytree(original, folder)
    shutil.rmtree(folder / "9")
    with pytest.warns(UserWarning, match="9 is damaged"):
        assert restore(folder).step == 5


def test_a_damaged_checkpoint_is_replaced(tmp_path):
    save(tmp_path, 5, 9)
    scramble(files_of(tmp_path)[-1])
    with pytest.warns(UserWarning, match="9 is damaged"):
        save(tmp_path, 7, 9)
    assert restore(tmp_path).step == 9


@pytest.mark.parametrize("damage", [scramble, Path.unlink])
def test_an_older_damaged_checkpoint_is_removed(damage, tmp_path):
    save(tmp_path, 5, 9)
    for file in files_of(tmp_path, 5)[1::2]:
        damage(file)
    assert restore(tmp_path).step == 9
    assert not (tmp_path / "5").exists()
    save(tmp_path, 10)
    assert restore(tmp_path).step == 10


def test_none_intact(tmp_path):
    save(tmp_path, 5, 9)
    for step in (5, 9):
        truncate(files_of(tmp_path, step)[-1])
    with pytest.raises(ValueError, match="checkpoint_dir must hold a checkpoint that is intact"):
        restore(tmp_path)
    assert (tmp_path / "5").exists()
    assert (tmp_path / "9").exists()


def test_an_unfinished_checkpoint_is_passed_over(tmp_path):
    save(tmp_path, 5, 9)
    (tmp_path / "9.json").unlink()
    (tmp_path / "12.orbax-checkpoint-tmp").mkdir()
    assert restore(tmp_path).step == 5
    save(tmp_path, 9)
    assert restore(tmp_path).step == 9


def test_an_unfinished_first_checkpoint(tmp_path):
    save(tmp_path, 5)
    (tmp_path / "5.json").unlink()
    assert restore(tmp_path) is None
    save(tmp_path, 5)
    assert restore(tmp_path).step == 5


# What is refused


def test_another_run_is_refused_by_what_differs(tmp_path):
    save(tmp_path, 5)
    other = {"steps": 200, "rate": 0.1, "lanes": ("a", None), "task": "x"}
    with pytest.raises(ValueError, match="checkpoint_dir") as caught:
        restore(tmp_path, identity=other)
    assert "steps (expected 200, got 100)" in str(caught.value)
    assert 'task (expected "x", got nothing)' in str(caught.value)
    assert 'data (expected nothing, got "f32[3]")' in str(caught.value)
    assert "rate" not in str(caught.value)
    assert "lanes" not in str(caught.value)
    assert restore(tmp_path).step == 5


@pytest.mark.parametrize(
    "like",
    [jnp.zeros(3, jnp.int32), jnp.zeros(2), np.zeros(2, np.int32), jax.random.key(0)],
    ids=lambda like: f"{like.dtype}{list(like.shape)}",
)
def test_other_leaves_are_refused(like, tmp_path):
    save(tmp_path, 5, tree={"w": jnp.zeros((), jnp.int32)})
    with pytest.raises(ValueError, match=r"must hold .* at \['w'\], got int32\[\]"):
        restore(tmp_path, {"w": like})


def test_other_trees_are_refused(tmp_path):
    save(tmp_path, 5)
    with pytest.raises(ValueError, match=r"must hold nothing at \['count'\], got int32\[\]"):
        restore(tmp_path, {})


def test_a_folder_may_be_relative_or_a_cloud_s(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("run", 1)
    assert (tmp_path / "run" / "1").exists()
    assert str(as_folder("gs://bucket/run")) == "gs://bucket/run"


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="checkpoint_dir must be empty or hold"):
        restore(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_hidden_files_do_not_make_a_folder_foreign(tmp_path):
    (tmp_path / ".DS_Store").write_text("")
    save(tmp_path, 5)
    assert restore(tmp_path).step == 5


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"lrjax.checkpoints": 2, "identity": {}}',
        '{"lrjax.checkpoints": 1, "identity": [1]}',
    ],
)
def test_a_folder_whose_identity_cannot_be_read(content, tmp_path):
    save(tmp_path, 5)
    (tmp_path / "identity.json").write_text(content)
    with pytest.raises(ValueError, match=r"checkpoint_dir .* cannot be read"):
        restore(tmp_path)
    assert recorded(tmp_path, "steps") is None


def test_a_file_in_the_folders_place(tmp_path):
    (tmp_path / "file").write_text("precious")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="checkpoint_dir must be a folder that can be written"):
            restore(place)
    assert (tmp_path / "file").read_text() == "precious"


def test_an_unwritable_folder(tmp_path, monkeypatch):
    from etils import epath

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    # Where tests run as root no folder is unwritable.
    monkeypatch.setattr(type(epath.Path(tmp_path)), "write_text", refuse)
    with pytest.raises(PermissionError, match=r"checkpoint_dir must be .*Permission denied"):
        restore(tmp_path)


def test_without_orbax(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match="pip install"):
        restore(tmp_path)


def test_two_runs_do_not_share_a_folder(tmp_path):
    message = "checkpoint_dir must be a folder that no other run uses"
    with open_checkpoints(tmp_path, IDENTITY), pytest.raises(RuntimeError, match=message):
        open_checkpoints(tmp_path, IDENTITY).__enter__()
    with open_checkpoints(tmp_path, IDENTITY) as checkpoints:
        assert checkpoints.step is None


# Kills

WRITER = """
import itertools, sys
import jax.numpy as jnp, numpy as np
from lrjax._checkpoints import open_checkpoints

like = {"count": jnp.int32(0), "w": jnp.zeros(1000)}
with open_checkpoints(sys.argv[1], {}) as checkpoints:
    restored = checkpoints.restore(like)
    for step in itertools.count(restored.step + 1 if restored else 1):
        print(step, flush=True)
        tree = {"count": jnp.int32(step), "w": jnp.full(1000, step, jnp.float32)}
        checkpoints.save(step, tree, {"loss": np.full(step, step)})
"""


def test_killed_at_any_moment(tmp_path):
    rng = random.Random(0)
    like = {"count": jnp.int32(0), "w": jnp.zeros(1000)}
    done = 0
    for _ in range(5):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        # A checkpoint takes about 0.05 s.
        for _ in range(rng.randint(1, 4)):
            process.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        announced = process.communicate()[0].split()
        restored = restore(tmp_path, like, identity={})
        step = restored.step if restored else 0
        assert step >= done
        # All but the one being written are there.
        assert not announced or step >= int(announced[-1]) - 1
        if restored:
            assert int(restored.tree["count"]) == step
            assert_same(restored.tree["w"], jnp.full(1000, step, jnp.float32))
            assert_same(restored.arrays, {"loss": np.full(step, step)})
        done = step
    assert done


# Several processes

PROCESS = """
import json, sys
import jax
index, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
import jax.numpy as jnp, numpy as np
from lrjax._checkpoints import open_checkpoints
from lrjax._fingerprints import fingerprint

mesh = jax.make_mesh((4,), ("lanes",))
sharding = jax.NamedSharding(mesh, jax.P("lanes"))

def make(value):
    host = np.arange(8, dtype=np.float32) + value
    array = jax.make_array_from_callback((8,), sharding, lambda index: host[index])
    keys = jax.jit(lambda: jax.random.split(jax.random.key(value), 8), out_shardings=sharding)()
    return {"w": array, "keys": keys, "count": np.int32(value), "none": np.zeros(0)}

def local(tree):
    shards = lambda array: [np.asarray(s.data).tolist() for s in array.addressable_shards]
    return shards(tree["w"]), shards(jax.random.key_data(tree["keys"])), int(tree["count"])

report = []
with open_checkpoints(folder, {"steps": 3}) as checkpoints:
    report.append(checkpoints.restore(make(0)))
    for step in (1, 2):
        checkpoints.save(step, make(step), {"loss": np.ones(step)})
with open_checkpoints(folder, {"steps": 3}) as checkpoints:
    step, tree, arrays = checkpoints.restore(make(0))
    report += [step, local(tree) == local(make(2)), len(arrays["loss"])]
report.append(fingerprint(make(1)))
try:
    with open_checkpoints(folder + "2", {"same": 1, "steps": index}):
        pass
except ValueError as error:
    report.append(str(error))
print(json.dumps(report))
"""


def test_two_processes(tmp_path):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    start = functools.partial(
        subprocess.Popen, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    processes = [
        start([sys.executable, "-c", PROCESS, str(k), port, str(tmp_path / "run")])
        for k in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    first, second = (json.loads(output.splitlines()[-1]) for output, _ in outputs)
    assert first[:4] == second[:4] == [None, 2, True, 2]
    assert first[4] == second[4]
    assert "same arguments, got several steps." in first[5]
    assert "same arguments, got several steps." in second[5]


def test_lists_go_with_their_checkpoints(tmp_path):
    save(tmp_path, 3, 5, 9)
    names = sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("."))
    assert names == ["5", "5.json", "9", "9.json", "identity.json"]


def test_a_list_of_files_is_there_at_once_or_not_at_all(tmp_path, monkeypatch):
    from etils import epath

    save(tmp_path, 5)
    before = (tmp_path / "identity.json").read_text()
    write = type(epath.Path(tmp_path)).write_text

    def half(self, text, *args, **kwargs):
        write(self, text[: len(text) // 2], *args, **kwargs)
        if text:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(epath.Path(tmp_path)), "write_text", half)
        with pytest.raises(KeyboardInterrupt):
            restore(tmp_path)
    assert (tmp_path / "identity.json").read_text() == before
    assert restore(tmp_path).step == 5


def test_what_a_killed_save_left_is_removed(tmp_path):
    save(tmp_path, 5)
    (tmp_path / "9.orbax-checkpoint-tmp").mkdir()
    assert restore(tmp_path).step == 5
    assert not (tmp_path / "9.orbax-checkpoint-tmp").exists()


@pytest.mark.parametrize("content", ["{}", "[]"])
def test_a_list_of_another_kind_is_damaged(content, tmp_path):
    save(tmp_path, 5, 9)
    (tmp_path / "9.json").write_text(content)
    with pytest.warns(UserWarning, match="9 is damaged"):
        assert restore(tmp_path).step == 5
