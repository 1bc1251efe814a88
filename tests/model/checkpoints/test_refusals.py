"""Nothing is imported by mistake, and nothing is left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dreamzero.errors import UserError
from dreamzero.model.checkpoints import importer, robots
from dreamzero.model.checkpoints.exporter import export_checkpoint
from dreamzero.model.checkpoints.importer import import_checkpoint
from dreamzero.model.checkpoints.miniature import (
    write_release,
)
from dreamzero.model.checkpoints.plan import ImportOptions
from dreamzero.model.checkpoints.shards import Weights

from .samples import tensors

# --- nothing is imported by mistake, and nothing is left behind ---


def metadata(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Break the statistics of oxe_droid."""

    def apply(folder: Path) -> None:
        path = folder / "experiment_cfg/metadata.json"
        data = json.loads(path.read_text())
        change(data["oxe_droid"]["statistics"])
        path.write_text(json.dumps(data))

    return apply


def replace_text(name: str, old: str, new: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return apply


def retensor(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    """Change tensors and write them again as one file."""

    def apply(folder: Path) -> None:
        release = tensors(folder)
        change(release)
        for path in folder.glob("model*"):
            path.unlink()
        write_release(folder, release)

    return apply


def truncate(folder: Path) -> None:
    path = sorted(folder.glob("model-*.safetensors"))[1]
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


def remove_shard(folder: Path) -> None:
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


Q = "action_head.model.blocks.1.self_attn.q.weight"
BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated shard": (truncate, r"model-00002-of-\d+.safetensors is truncated"),
    "missing shard": (remove_shard, r"index.json names model-00002-of-\d+.safetensors, which is"),
    "no shard at all": (
        lambda f: [p.write_bytes(b"") for p in f.glob("*.safetensors")],
        "is no safetensors file",
    ),
    "index of something else": (
        replace_text("model.safetensors.index.json", Q, Q.replace("q", "z")),
        "says that .* but it is not",
    ),
    "index outside the folder": (
        replace_text("model.safetensors.index.json", "model-00001", "../model-00001"),
        "no file beside it",
    ),
    "wrong shape": (
        retensor(lambda t: t.update({Q: torch.zeros(24, 25)})),
        r"self_attn.q.weight has shape \[24, 25\]; the configuration asks for \[24, 24\]",
    ),
    "wrong shape of a joint tensor": (
        retensor(
            lambda t: t.update(
                {
                    "action_head.image_encoder.model.visual.transformer.3.attn.to_qkv.bias": (
                        torch.zeros(46)
                    )
                }
            )
        ),
        "46 rows, which are not 3 equal parts",
    ),
    "missing tensor": (
        retensor(lambda t: t.pop(Q)),
        "lacks 1 tensors of the transformer, blocks.1",
    ),
    "unknown tensor": (
        retensor(lambda t: t.update({Q.replace("q.", "quux."): torch.zeros(1)})),
        "is no tensor of the release's transformer",
    ),
    "tensor without prefix": (
        retensor(lambda t: t.update({"lm_head.weight": torch.zeros(1)})),
        "holds lm_head.weight",
    ),
    "no config.json": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "config.json of another width": (
        replace_text("config.json", '"dim": 24', '"dim": 48'),
        "the configuration asks for",
    ),
    "no metadata.json": (
        lambda f: (f / "experiment_cfg/metadata.json").unlink(),
        "metadata.json is missing, and with it the statistics",
    ),
    "no conf.yaml": (
        lambda f: (f / "experiment_cfg/conf.yaml").unlink(),
        "conf.yaml is missing, and with it the order",
    ),
    "statistics of a field missing": (
        metadata(lambda s: s["action"].pop("gripper_position")),
        "statistics.action.gripper_position is missing",
    ),
    "no q99": (
        metadata(lambda s: s["state"]["joint_position"].pop("q99")),
        "statistics.state.joint_position is missing or lacks",
    ),
    "q01 == q99": (
        metadata(lambda s: s["action"]["joint_position"]["q99"].__setitem__(3, -0.47)),
        r"joint_position\[3\]: q01 == q99 == -0.47",
    ),
    "q01 above q99": (
        metadata(lambda s: s["action"]["joint_position"]["q99"].__setitem__(3, -9)),
        r"joint_position\[3\]: q01 = -0.47 is above q99 = -9",
    ),
    "quantiles of other lengths": (
        metadata(lambda s: s["action"]["joint_position"]["q99"].pop()),
        "lists of the same length",
    ),
    "another normalisation": (
        replace_text(
            "experiment_cfg/conf.yaml",
            "action.joint_position: q99",
            "action.joint_position: min_max",
        ),
        "normalised by 'min_max'",
    ),
    "no order for the robot": (
        replace_text("experiment_cfg/conf.yaml", "    oxe_droid:", "    agibot:"),
        "no concat order for embodiment 'oxe_droid'",
    ),
    "conf.yaml is no YAML": (
        lambda f: (f / "experiment_cfg/conf.yaml").write_text("a: [1"),
        "conf.yaml is no YAML",
    ),
}


@pytest.mark.parametrize("what", BREAKS)
def test_one_line_and_no_folder(what: str, broken: Path, tmp_path: Path) -> None:
    change, says = BREAKS[what]
    change(broken)
    with pytest.raises(UserError, match=says) as caught:
        import_checkpoint(broken, tmp_path / "out" / "ours")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_constant_dimensions_on_request(broken: Path, tmp_path: Path) -> None:
    BREAKS["q01 == q99"][0](broken)
    options = ImportOptions(allow_constant=True)
    out = import_checkpoint(broken, tmp_path / "ours", options=options)
    assert (
        robots.load(out / "embodiment.json")["oxe_droid"][1].action["joint_position"].q99[3]
        == -0.47
    )


def test_options_that_do_not_fit(shallow: Path, wan: Path, tmp_path: Path) -> None:
    for path, options, says in (
        (shallow, ImportOptions(tags=("yam",)), "no embodiment 'yam'; it knows oxe_droid"),
        (shallow, ImportOptions(horizon=12), "leave --horizon out"),
        (wan, ImportOptions(tags=("oxe_droid",)), "plain Wan and knows no embodiment"),
        (shallow, ImportOptions(prompt="do it"), "should have {instruction}"),
        (shallow, ImportOptions(tokenizer=tmp_path), "holds no tokenizer"),
    ):
        with pytest.raises(UserError, match=says):
            import_checkpoint(path, tmp_path / "ours", options=options)
    with pytest.raises(UserError, match="is imported already"):
        out = import_checkpoint(shallow, tmp_path / "ours")
        import_checkpoint(out, tmp_path / "twice")
    with pytest.raises(UserError, match="exists already"):
        import_checkpoint(shallow, tmp_path / "ours")
    with pytest.raises(UserError, match="leave --base out"):
        import_checkpoint(shallow, tmp_path / "twice", base=out)
    with pytest.raises(UserError, match="not an imported folder"):
        export_checkpoint(shallow, tmp_path / "twice")
    with pytest.raises(UserError, match="is no checkpoint that is known"):
        import_checkpoint(tmp_path / "wan", tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


class Bomb:
    """What a hostile file would hold."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"a": Bomb()}, "holds more than tensors and is not opened"),
        ({"token_embedding.weight": torch.zeros(2), "epoch": 3}, "holds a int under 'epoch'"),
        ([torch.zeros(2)], "holds a list, not a dictionary"),
        (b"PK\x03\x04 half of a file", "is no complete torch file"),
        (b"neither zip nor pickle", "holds more than tensors|is no complete torch file"),
    ],
)
def test_pth_that_is_not_plain_tensors(
    wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = wan / "models_t5_umt5-xxl-enc-bf16.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match=says) as caught:
        import_checkpoint(wan, tmp_path / "out" / "ours")
    assert "\n" not in str(caught.value) and path.name in str(caught.value)
    assert not (tmp_path / "out").exists() and not Path("exploded").exists()


def test_truncated_and_old_pth(wan: Path, tmp_path: Path) -> None:
    path = wan / "Wan2.1_VAE.pth"
    content = torch.load(path, weights_only=True)
    torch.save(content, path, _use_new_zipfile_serialization=False)
    import_checkpoint(wan, tmp_path / "old")
    torch.save(content, path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(UserError, match="is no complete torch file"):
        import_checkpoint(wan, tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_nothing_stays_of_an_import_that_stopped(
    shallow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    calls = 0
    write = importer.ShardSet.write

    def fail(self: Any, name: str, tensor: Tensor) -> None:
        nonlocal calls
        calls += 1
        if calls == 200:
            raise stop
        write(self, name, tensor)

    monkeypatch.setattr(importer.ShardSet, "write", fail)
    with pytest.raises(type(stop)):
        import_checkpoint(shallow, tmp_path / "out" / "ours")
    assert calls == 200 and list(tmp_path.iterdir()) == []


# --- headers that nobody should trust ---


@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.integers(0, 40))
def test_damaged_headers_are_one_line_or_read_alike(
    at: int, byte: int, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One byte changed and the end cut off: a UserError, or a header that still describes the file."""
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / "model.safetensors"
    write_release(folder, {"a": torch.ones(2, 3), "b": torch.zeros((), dtype=torch.bfloat16)})
    data = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    data[at % header] = byte
    path.write_bytes(data[: len(data) - cut])
    try:
        weights = Weights.open(path)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert cut == 0
        assert sum(weights.tensor(name).nbytes for name in weights) == 26
