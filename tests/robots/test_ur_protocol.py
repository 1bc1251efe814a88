"""RTDE, the primary interface and the uploaded program, as bytes and text: no socket anywhere."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamzero.errors import UserError
from dreamzero.robots.ur import primary
from dreamzero.robots.ur import protocol as rtde
from dreamzero.robots.ur.program import Program, Refused
from dreamzero.robots.ur.protocol import (
    IN_USE,
    NOT_FOUND,
    TYPES,
    Kind,
    Level,
    NotRtde,
    Package,
    Parser,
    Recipe,
)
from dreamzero.robots.ur.variables import INPUTS, OUTPUTS


def one(data: bytes) -> Package:
    (package,) = Parser().feed(data)
    return package


@pytest.mark.parametrize(
    ("package", "bytes_"),
    [
        (rtde.request_version(2), "0005 56 0002"),
        (rtde.answer(Kind.REQUEST_PROTOCOL_VERSION, True), "0004 56 01"),
        (rtde.get_controller_version(), "0003 76"),
        (
            rtde.controller_version((5, 11, 6, 108735)),
            "0013 76 00000005 0000000b 00000006 0001a8bf",
        ),
        (rtde.start(), "0003 53"),
        (rtde.answer(Kind.START, True), "0004 53 01"),
        (rtde.pause(), "0003 50"),
        (
            rtde.setup_outputs(125.0, ("timestamp", "actual_q")),
            "001d 4f 405f400000000000 74696d657374616d702c61637475616c5f71",
        ),
        (
            rtde.setup_answer(Kind.SETUP_OUTPUTS, 1, ("DOUBLE", "VECTOR6D")),
            "0013 4f 01 444f55424c452c564543544f523644",
        ),
        (rtde.setup_inputs(("speed_slider_mask",)), "0014 49 73706565645f736c696465725f6d61736b"),
        (rtde.setup_answer(Kind.SETUP_INPUTS, 0, (IN_USE,)), "000a 49 00 494e5f555345"),
        (rtde.text("ab", "c", Level.WARNING), "0009 4d 02 6162 01 63 02"),
    ],
)
def test_packages_byte_for_byte(package: bytes, bytes_: str) -> None:
    assert package == bytes.fromhex(bytes_)


def test_a_data_package_byte_for_byte() -> None:
    recipe = Recipe(7, ("timestamp", "robot_mode", "payload_cog"), ("DOUBLE", "INT32", "VECTOR3D"))
    package = recipe.encode((1.0, -1, 0.5, -2.0, 0.0))
    assert package == bytes.fromhex(
        "0028 55 07 3ff0000000000000 ffffffff 3fe0000000000000 c000000000000000 0000000000000000"
    )
    assert recipe.decode(one(package).payload) == {
        "timestamp": 1.0,
        "robot_mode": -1,
        "payload_cog": (0.5, -2.0, 0.0),
    }


def test_what_is_written_is_read() -> None:
    assert rtde.read_version_request(one(rtde.request_version(2)).payload) == 2
    version = (5, 12, 0, 1)
    assert rtde.read_controller_version(one(rtde.controller_version(version)).payload) == version
    names = ("timestamp", "actual_q")
    assert rtde.read_outputs_request(one(rtde.setup_outputs(500, names)).payload) == (500, names)
    assert rtde.read_names(one(rtde.setup_inputs(names)).payload) == names
    assert rtde.read_names(b"timestamp,") == ("timestamp",)
    assert rtde.read_names(b"") == ()
    said = rtde.read_text(one(rtde.text("low battery", "RTDE", Level.ERROR)).payload)
    assert (said.message, said.source, said.level) == ("low battery", "RTDE", Level.ERROR)
    answer = rtde.setup_answer(Kind.SETUP_OUTPUTS, 0, ("DOUBLE", NOT_FOUND))
    assert rtde.read_setup_answer(one(answer).payload) == (0, ("DOUBLE", NOT_FOUND))


CODES = {
    "BOOL": st.booleans(),
    "UINT8": st.integers(0, 2**8 - 1),
    "UINT32": st.integers(0, 2**32 - 1),
    "UINT64": st.integers(0, 2**64 - 1),
    "INT32": st.integers(-(2**31), 2**31 - 1),
    "DOUBLE": st.floats(allow_nan=False),
}
ELEMENT = {
    "VECTOR3D": "DOUBLE",
    "VECTOR6D": "DOUBLE",
    "VECTOR6INT32": "INT32",
    "VECTOR6UINT32": "UINT32",
}


@given(st.data(), st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=8))
def test_every_type_survives_the_wire(data: st.DataObject, types: list[str]) -> None:
    names = tuple(f"v{i}" for i in range(len(types)))
    flat: list[float] = []
    for type_ in types:
        values = CODES[ELEMENT.get(type_, type_)]
        flat += data.draw(st.lists(values, min_size=TYPES[type_][1], max_size=TYPES[type_][1]))
    recipe = Recipe(3, names, tuple(types))
    payload = one(recipe.encode(flat)).payload
    assert recipe.flat(payload) == tuple(flat)
    assert len(payload) == recipe.payload_bytes
    decoded = recipe.decode(payload)
    assert list(decoded) == list(names)
    for name, type_ in zip(names, types, strict=True):
        assert isinstance(decoded[name], tuple) == (TYPES[type_][1] > 1)


@given(
    st.lists(st.tuples(st.sampled_from(list(Kind)), st.binary(max_size=60)), max_size=8), st.data()
)
def test_fragments_make_the_same_packages(
    packages: list[tuple[Kind, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(rtde.encode(kind, payload) for kind, payload in packages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    parser, found = Parser(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += parser.feed(stream[start:end])
    assert found == [Package(kind, payload) for kind, payload in packages]


@given(st.lists(st.binary(max_size=64), max_size=12))
def test_noise_is_packages_or_refused(parts: list[bytes]) -> None:
    parser = Parser()
    try:
        packages = [package for part in parts for package in parser.feed(part)]
    except NotRtde:
        return
    assert sum(3 + len(package.payload) for package in packages) <= sum(map(len, parts))


@given(st.binary(max_size=80))
def test_no_payload_brings_a_reader_down(payload: bytes) -> None:
    for read in (
        rtde.read_version_request,
        rtde.read_answer,
        rtde.read_controller_version,
        rtde.read_outputs_request,
        rtde.read_names,
        rtde.read_setup_answer,
        rtde.read_text,
        Recipe(1, ("timestamp",), ("DOUBLE",)).flat,
    ):
        try:
            read(payload)
        except NotRtde:
            continue


def test_another_protocol_is_known_by_its_first_bytes() -> None:
    with pytest.raises(NotRtde, match="Connected: Univer"):
        Parser().feed(b"Connected: Universal Robots Dashboard Server\n")
    with pytest.raises(NotRtde):
        Parser().feed(b"\x00\x02V")


@pytest.mark.parametrize(
    ("names", "types", "part"),
    [
        (("a", "b"), ("DOUBLE",), "1 types were answered for 2"),
        (("a",), (NOT_FOUND,), "has type 'NOT_FOUND'"),
        ((), (), "0 types"),
    ],
)
def test_recipes_that_are_none(names: tuple, types: tuple, part: str) -> None:
    with pytest.raises(NotRtde, match=part):
        Recipe(1, names, types)


def test_data_of_another_recipe_is_refused() -> None:
    recipe = Recipe(1, ("timestamp",), ("DOUBLE",))
    other = Recipe(2, ("timestamp",), ("DOUBLE",))
    with pytest.raises(NotRtde, match="recipe 02"):
        recipe.flat(one(other.encode((1.0,))).payload)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="does not fit"):
        rtde.encode(Kind.TEXT_MESSAGE, bytes(70_000))
    with pytest.raises(UserError, match="bytes of names"):
        rtde.setup_outputs(500, tuple(INPUTS))
    assert len(one(rtde.text("x" * 300)).payload) == 255 + 3


def test_the_tables() -> None:
    assert OUTPUTS["actual_q"].type == "VECTOR6D"
    assert INPUTS["input_double_register_47"].type == "DOUBLE"
    assert INPUTS["input_bit_register_64"].type == "BOOL"
    assert "input_bit_register_63" not in INPUTS
    assert all(variable.type in TYPES for variable in [*INPUTS.values(), *OUTPUTS.values()])
    # What the guide says of registers: the upper ones came with 3.9 and 5.3.
    upper, lower = OUTPUTS["output_int_register_24"], OUTPUTS["output_int_register_23"]
    assert [upper.known_to(v) for v in ((3, 8, 9), (3, 9, 0), (5, 2, 9), (5, 3, 0))] == [
        False,
        True,
        False,
        True,
    ]
    assert lower.known_to((5, 0, 0))
    assert lower.known_to((3, 4, 0))
    assert not lower.known_to((3, 3, 0))
    assert OUTPUTS["ft_raw_wrench"].known_to((5, 9, 0, 0))
    assert not OUTPUTS["ft_raw_wrench"].known_to((3, 15, 0, 0))
    assert OUTPUTS["timestamp"].known_to((3, 3, 0, 0))


def test_primary_messages_byte_for_byte() -> None:
    error = primary.Message(primary.Kind.ERROR_CODE, "", code=210)
    data = primary.encode(error, time_us=5)
    assert data == bytes.fromhex(
        "00000023 14 0000000000000005 fe 06 000000d2 00000000 00000002 00000000 00000000"
    )
    (read,) = primary.Parser().feed(data)
    assert read == error
    assert str(read) == "C210A0"


def test_a_robot_state_between_messages_is_passed_over() -> None:
    state = struct.pack(">iB", 60, primary.ROBOT_STATE) + bytes(55)
    key = primary.Message(primary.Kind.KEY, "program", title="PROGRAM_XXX_STARTED")
    wrong = primary.Message(primary.Kind.RUNTIME_EXCEPTION, "no such name", line=3, column=5)
    stream = state + primary.encode(key) + state + primary.encode(wrong) + state[:20]
    parser, found = primary.Parser(), []
    for i in range(0, len(stream), 7):
        found += parser.feed(stream[i : i + 7])
    assert found == [key, wrong]
    assert str(found[1]) == "line 3, column 5: no such name"
    with pytest.raises(primary.NotPrimary):
        primary.Parser().feed(b"Connected: Universal Robots")


@given(st.binary(max_size=90))
def test_no_bytes_bring_the_primary_parser_down(data: bytes) -> None:
    for stream in (data, struct.pack(">iB", 5 + len(data), primary.ROBOT_MESSAGE) + data):
        try:
            assert isinstance(primary.Parser().feed(stream), list)
        except primary.NotPrimary:
            continue


def test_the_program_is_one_the_controller_takes() -> None:
    text = Program().text()
    lines = text.split("\n")
    assert text.isascii()
    assert lines[0].startswith("def ")
    assert lines[-2:] == ["end", ""]
    # "Connecting to URControl": everything between the first and the last line is indented.
    assert all(line.startswith("  ") for line in lines[1:-2])
    opened = sum(line.split("#")[0].rstrip().endswith(":") for line in lines)
    branches = sum(line.strip().startswith(("else", "elif")) for line in lines)
    assert opened - branches == sum(line.strip() == "end" for line in lines)
    assert "$" not in text


def test_the_program_names_the_registers_that_the_driver_writes() -> None:
    program = Program(registers=24, step_s=0.002, lookahead_s=0.05, gain=500)
    text = program.text()
    assert "servoj(target, 0, 0, 0.002, 0.05, 500)" in text
    assert program.targets[0] == "input_double_register_24"
    assert "read_input_float_register(29)]" in text
    assert f'rtde_set_watchdog("{program.beat}", 1.0, "stop")' in text
    for name in (*program.targets, program.sequence, program.command, program.beat):
        assert name in INPUTS
    assert {program.status, program.echo} <= set(OUTPUTS)


@given(
    st.sampled_from((0, 24)),
    st.sampled_from((0.002, 0.008)),
    st.floats(0.03, 0.2),
    st.integers(100, 2000),
    st.floats(0.1, 3.0),
)
def test_the_program_is_read_back(
    registers: int, step_s: float, lookahead_s: float, gain: int, leap_rad: float
) -> None:
    program = Program(registers, step_s, lookahead_s, gain, leap_rad=leap_rad)
    assert Program.parse(program.text()) == program


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("servoj(target", "movej(target", "movej(target, 0, 0, 0.002, 0.1, 300)"),
        ("stopj(5.0)\n      moving", "stopj(9.0)\n      moving", "stopj(5.0)"),
        ("here[i]) > far:", "here[i]) > far or True:", "or True:"),
        ("sequence != last", "sequence == last", "if sequence == last:"),
        ("  stopj(5.0)\nend\n", "  set_digital_out(0, True)\nend\n", "set_digital_out(0, True)"),
        ("stopj(5.0)\nend\n", "stopj(5.0)\nend\nend\n", "goes on"),
    ],
)
def test_any_other_program_is_refused_where_it_differs(old: str, new: str, said: str) -> None:
    text = Program().text()
    assert old in text
    changed = text.replace(old, new, 1)
    with pytest.raises(Refused) as caught:
        Program.parse(changed)
    assert said in str(caught.value)
    if "goes on" not in said:
        assert said in changed.split("\n")[caught.value.line - 1]


@given(st.text(max_size=200))
def test_no_text_brings_the_reader_down(text: str) -> None:
    with pytest.raises(Refused):
        Program.parse(text)


@pytest.mark.parametrize(
    ("numbers", "part"),
    [
        ({"gain": 50}, "gain=50: servoj takes 100 to 2000"),
        ({"lookahead_s": 0.5}, "servoj takes 0.03 to 0.2 s"),
        ({"registers": 43}, "registers=43"),
        ({"patience_s": 0.0}, "patience_s is 0.0"),
    ],
)
def test_numbers_that_the_controller_does_not_take(numbers: dict, part: str) -> None:
    with pytest.raises(UserError, match=part):
        Program(**numbers)
