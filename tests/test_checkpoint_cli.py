"""``dreamzero checkpoint`` and ``dreamzero bench checkpoint`` from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dreamzero.model.checkpoints import benchmark
from dreamzero.model.checkpoints.importer import import_checkpoint
from dreamzero.model.checkpoints.miniature import Widths, write_miniature
from dreamzero.shipped import FOLDER, NAME

Cli = Callable[..., tuple[int, str, str]]
SHALLOW = Widths(layers=1, text_layers=2, image_layers=4)


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli")
    write_miniature(root / "droid", SHALLOW)
    write_miniature(root / "save", SHALLOW, rank=4)
    return root


@pytest.mark.parametrize("verb", ["inspect", "import", "export", "merge-lora"])
def test_help_teaches(cli: Cli, verb: str) -> None:
    status, out, err = cli("checkpoint", verb, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: dreamzero checkpoint {verb}") and "--json" in out
    assert f"dreamzero checkpoint {verb} " in cli("checkpoint", "--help")[1]


def test_there_and_back(cli: Cli, public: Path, tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    status, out, err = cli("checkpoint", "import", public / "droid", "--out", base)
    assert (status, err) == (0, "")
    assert "oxe_droid" in out and "joint_position* 7" in out and "tokenizer: that of" in out
    assert cli("checkpoint", "import", public / "save", "--base", base, "--out", adapter)[0] == 0
    status, out, _ = cli(
        "checkpoint", "merge-lora", base, "--adapter", adapter, "--out", tmp_path / "m", "--json"
    )
    assert status == 0 and "adapter adapter merged" in json.loads(out)["notes"]
    status, out, _ = cli("checkpoint", "export", base, "--out", tmp_path / "back")
    assert (
        status == 0
        and out == f"{tmp_path / 'back'}: shards, index and configurations as they came\n"
    )
    before, after = (
        json.loads(cli("checkpoint", "inspect", path, "--json")[1])
        for path in (public / "droid", tmp_path / "back")
    )
    assert before["layout"] == "release" and before["parameters"] > 0
    assert {**before, "path": ""} == {**after, "path": ""}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["import", "{droid}"], "--out"),
        (["import", "{droid}", "--out", "x", "--embodiment", "yam"], "no embodiment 'yam'"),
        (["import", "{save}", "--out", "x"], "is a LoRA save: name the imported checkpoint"),
        (["import", "nowhere", "--out", "x"], "nowhere does not exist"),
        (["inspect", "{droid}/config.json"], "is a file: give a folder"),
        (["export", "{droid}", "--out", "x"], "not an imported folder"),
        (["merge-lora", "{droid}", "--adapter", "{droid}", "--out", "x"], "not an adapter"),
        (["merge-lora", "{droid}", "--out", "x"], "--adapter"),
        (["import", "GEAR-Dreams/DreamZero-DROID", "--out", "x"], "the Hub cannot be reached"),
    ],
)
def test_mistakes_are_one_line(
    cli: Cli,
    public: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"droid": public / "droid", "save": public / "save"}
    status, out, err = cli("checkpoint", *(text.format(**names) for text in arguments))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("dreamzero: ") and says in err
    assert list(tmp_path.iterdir()) == []


def test_models_trained_here_are_shown_but_have_no_public_layout(cli: Cli, tmp_path: Path) -> None:
    status, out, _ = cli("checkpoint", "inspect", FOLDER / NAME, "--json")
    facts = json.loads(out)
    assert (status, facts["layout"], facts["missing"]) == (0, "ours", [])
    assert [c["component"] for c in facts["components"]] == ["transformer", "text_encoder", "vae"]
    status, _, err = cli("checkpoint", "export", FOLDER / NAME, "--out", tmp_path / "x")
    assert status == 2 and "does not fit the public layout" in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_progress_names_bytes_and_time_left(
    public: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dreamzero.model.checkpoints.writer import progress_bar

    with progress_bar(2_000_000_000, "import", True) as bar:
        bar.update(500_000_000)
    assert (
        "import:  25%" in (err := capsys.readouterr().err) and "500M/2.00G" in err and "B/s" in err
    )


@pytest.mark.parametrize(("peak", "status"), [(2_000_000_000, 0), (4_000_000_000, 1)])
def test_bench_judges_the_memory(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, peak: int, status: int
) -> None:
    memory = benchmark.Memory(
        anonymous=peak, mapped=0, total=peak, written=20_000_000_000, destination=0,
        largest=2_100_000_000, seconds=40.0,
    )  # fmt: skip
    monkeypatch.setattr(benchmark, "run", lambda gigabytes, load: {"import": memory})
    got, out, err = cli("bench", "checkpoint", "--gigabytes", "20", "--json")
    assert (got, err) == (status, "")
    metrics = json.loads(out)["metrics"]
    assert metrics["import_memory_above_destination"]["value"] == peak / 1e9
    assert metrics["import_bound"]["value"] == pytest.approx(3.173741824)


def test_guidance_of_an_imported_model_names_what_it_leads_away_from(
    cli: Cli, public: Path, tmp_path: Path
) -> None:
    model = import_checkpoint(public / "droid", tmp_path / "model")
    common = ("evaluate", "--policy", model, "--episodes", 1, "--workers", 1)
    status, out, err = cli(*common, "--guidance", "5")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "--guidance 5 of an imported model needs --negative-prompt TEXT" in err
    status, _, err = cli(*common, "--negative-prompt", "blurry")
    assert status == 2 and "is read with guidance only" in err
    # With both it goes on, to where a model of this robot would be needed.
    status, _, err = cli(*common, "--guidance", "5", "--negative-prompt", "blurry")
    assert status == 2 and "tokenizer" in err
