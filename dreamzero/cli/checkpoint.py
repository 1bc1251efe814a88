"""``dreamzero checkpoint``: other people's weights in, the public layout out."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dreamzero.model.checkpoints.summary import Summary

_DESCRIPTION = """\
Bring public weights here, look at them, and give them back.

  import      any known layout to one folder of ours (diffusers and transformers convention)
  inspect     components, tensors, dtypes, robots, and what is missing; reads headers only
  export      an imported folder to the public layout again, bit for bit
  merge-lora  an imported checkpoint with an adapter's changes added

Known layouts: the public DreamZero checkpoints, original Wan 2.1 and 2.2 repositories, Wan in
the Diffusers layout, and LoRA saves of the release. PATH is a folder or OWNER/NAME on the
Hugging Face Hub (a stopped download goes on where it was).
"""

_EXAMPLES = """\
examples:
  dreamzero checkpoint import GEAR-Dreams/DreamZero-DROID --out weights/droid
  dreamzero checkpoint inspect weights/droid
  dreamzero checkpoint import my_lora --base weights/droid --out weights/my_adapter
  dreamzero checkpoint merge-lora weights/droid --adapter weights/my_adapter --out weights/mine
  dreamzero checkpoint export weights/mine --out mine_public

Memory: weights are mapped and copied one tensor at a time; the largest one at 14B has 2.1 GB.
"""

_IMPORT = """\
Convert PATH into the folder --out: transformer/ vae/ text_encoder/ image_encoder/ tokenizer/ with the
libraries' own names, embodiment.json (statistics, order of fields, rates, views), and what export
needs to give PATH back. The folder appears when it is complete; after any failure there is none.

A LoRA save needs --base, the imported checkpoint it was trained from: its fingerprint goes into the
adapter, which then refuses any other base. Plain Wan has no action and state coders; they are
initialised from --seed, and inspect says so.
"""

_EXPORT = """\
Write an imported folder, or an adapter, in the layout of the public release. What came from that
layout gets its names, bytes, shards, index and configurations back bit for bit; anything else gets
shards of 5 GB and configurations made from ours. --like takes shards and configurations of the
imported folder that a fine-tuned model started from.
"""

_MERGE = """\
Write BASE with the adapter's changes added: in float32, stored in the base's dtype. Refuses an
adapter that was made for another base (they differ in fingerprint).
"""


def add(subparsers: Any) -> None:
    """Add the verb to the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser(
        "checkpoint",
        help="inspect, import, export and merge checkpoints",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=formatter,
    )
    verbs = parser.add_subparsers(
        dest="checkpoint_verb", metavar="inspect|import|export|merge-lora", required=True
    )

    def verb(name: str, text: str, description: str, function: Any, out: bool = True) -> Any:
        one = verbs.add_parser(name, help=text, description=description, formatter_class=formatter)
        if out:
            one.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder")
            one.add_argument("--quiet", action="store_true", help="no progress bar")
        one.add_argument("--json", action="store_true", help="print JSON for programs")
        one.set_defaults(function=function)
        return one

    text = "show components, robots and what is missing (reads headers only)"
    one = verb("inspect", text, text.capitalize() + ".", _inspect, out=False)
    one.add_argument("path", metavar="PATH", help="folder, or OWNER/NAME in the Hub's cache")
    one.add_argument("--revision", metavar="REV", help="branch or commit on the Hub")

    one = verb("import", "convert public weights into a folder of ours", _IMPORT, _import)
    one.add_argument("path", metavar="PATH", help="folder, or OWNER/NAME on the Hub")
    one.add_argument("--revision", metavar="REV", help="branch or commit on the Hub")
    one.add_argument(
        "--embodiment",
        action="append",
        default=[],
        metavar="TAG",
        help="take only this robot (may be repeated; default: all with statistics)",
    )
    one.add_argument("--base", type=Path, metavar="DIR", help="LoRA saves: the imported base")
    one.add_argument("--tokenizer", type=Path, metavar="DIR", help="folder of umt5-xxl's tokenizer")
    one.add_argument("--prompt", metavar="TEXT", help="prompt template with {instruction} in it")
    one.add_argument(
        "--dtype",
        metavar="NAME",
        help="bfloat16 or float32 (default: as stored; export needs that)",
    )
    one.add_argument("--seed", type=int, default=0, help="plain Wan: of the new coders (default 0)")
    one.add_argument("--horizon", type=int, help="plain Wan: action steps a block (default 24)")
    one.add_argument(
        "--allow-constant", action="store_true", help="take q01 == q99 as a constant dimension"
    )

    one = verb("export", "write the public layout again, bit for bit", _EXPORT, _export)
    one.add_argument("path", metavar="PATH", help="imported folder or adapter")
    one.add_argument("--like", type=Path, metavar="DIR", help="imported folder to take the form of")

    one = verb("merge-lora", "add an adapter to its base", _MERGE, _merge)
    one.add_argument("path", metavar="BASE", help="imported folder")
    one.add_argument("--adapter", type=Path, required=True, metavar="DIR", help="imported adapter")


def _bar(args: argparse.Namespace) -> bool | None:
    return False if args.quiet else None


def _inspect(args: argparse.Namespace) -> int:
    from dreamzero.model.checkpoints.summary import inspect_checkpoint

    return _show(inspect_checkpoint(args.path, args.revision), args)


def _import(args: argparse.Namespace) -> int:
    from dreamzero.model.checkpoints.importer import import_checkpoint
    from dreamzero.model.checkpoints.plan import ImportOptions
    from dreamzero.model.checkpoints.summary import inspect_checkpoint

    options = ImportOptions(
        tags=tuple(args.embodiment),
        dtype=args.dtype,
        seed=args.seed,
        horizon=args.horizon,
        tokenizer=args.tokenizer,
        prompt=args.prompt,
        allow_constant=args.allow_constant,
    )
    out = import_checkpoint(
        args.path,
        args.out,
        base=args.base,
        revision=args.revision,
        options=options,
        progress=_bar(args),
    )
    return _show(inspect_checkpoint(out), args)


def _export(args: argparse.Namespace) -> int:
    from dreamzero.model.checkpoints.exporter import export_checkpoint

    done = export_checkpoint(args.path, args.out, like=args.like, progress=_bar(args))
    if args.json:
        print(json.dumps({"path": str(done.path), "same_shards": done.same_shards}))
    elif done.same_shards:
        print(f"{done.path}: shards, index and configurations as they came")
    else:
        print(f"{done.path}: new shards, configurations made from ours")
    return 0


def _merge(args: argparse.Namespace) -> int:
    from dreamzero.model.checkpoints.lora import merge_lora
    from dreamzero.model.checkpoints.summary import inspect_checkpoint

    out = merge_lora(args.path, args.adapter, args.out, progress=_bar(args))
    return _show(inspect_checkpoint(out), args)


def _show(summary: Summary, args: argparse.Namespace) -> int:
    if args.json:
        print(json.dumps(summary.to_json(), indent=2))
        return 0
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from dreamzero.model.checkpoints.summary import KINDS

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    title = f"{escape(summary.path)}: {KINDS[summary.layout]}, {summary.files} weight files"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("component")
    for name in ("tensors", "parameters", "dtype", "bytes"):
        table.add_column(name, justify="left" if name == "dtype" else "right")
    for row in summary.components:
        dtypes = ", ".join(
            name if len(row.dtypes) == 1 else f"{count} {name}"
            for name, count in row.dtypes.items()
        )
        table.add_row(
            row.component, f"{row.tensors:,}", f"{row.parameters:,}", dtypes, f"{row.bytes:,}"
        )
    table.add_section()
    table.add_row("all", *(f"{n:,}" for n in (summary.tensors, summary.parameters)), "",
                  f"{summary.bytes:,}")  # fmt: skip
    console.print(table)
    if summary.robots:
        robots = Table(
            title="Robots", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD
        )
        for name in ("tag", "views", "state", "action (* relative)", "rate"):
            robots.add_column(name, overflow="fold")
        for robot in summary.robots:
            action = {
                key + ("*" if key in robot.relative else ""): width
                for key, width in robot.action.items()
            }
            robots.add_row(
                robot.tag,
                "\n".join(view.rpartition(".")[2] for view in robot.views),
                "\n".join(f"{key} {width}" for key, width in robot.state.items()),
                "\n".join(f"{key} {width}" for key, width in action.items()),
                f"{robot.horizon} steps at {robot.action_hz:g} Hz",
            )
        console.print(robots)
    for head, lines in (("Missing", summary.missing), ("Notes", summary.notes)):
        if lines:
            console.print(f" [bold]{head}[/]")
            for line in lines:
                console.print(f"   {escape(line)}", soft_wrap=True)
    return 0
