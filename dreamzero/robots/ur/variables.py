"""What a UR controller tells and takes over RTDE: name -> type, unit, meaning, first version.

Source: Universal Robots, "Real-Time Data Exchange (RTDE) Guide", tables "Robot controller inputs" and
"Robot controller outputs" (revision of September 2024). Versions are those of PolyScope 3 (CB3) and 5
(e-Series); empty where a variable has been there since RTDE has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Variable:
    """One entry of the tables.

    Attributes:
        type: a key of ``protocol.TYPES``.
        unit: SI unit of its values, or "bits" and the like; empty for counts and codes.
        since: "3.x / 5.x", where it was added after RTDE itself.
    """

    name: str
    type: str
    unit: str = ""
    meaning: str = ""
    since: str = ""

    def known_to(self, version: tuple[int, ...]) -> bool:
        """Whether a controller of that software, (major, minor, bugfix ...), has it."""
        added = [tuple(map(int, part.split("."))) for part in self.since.split(" / ") if part]
        own = [part for part in added if part[0] == version[0]]
        return version >= own[0] if own else all(part[0] < version[0] for part in added)


_REGISTERS = "3.4.0"
_UPPER = "3.9.0 / 5.3.0"
# Up to here registers are a fieldbus master's (PLC); from here on they are a client's like ours.
UPPER_RANGE = 24
REGISTERS = 48


def _registers(side: str) -> Iterator[Variable]:
    """General purpose registers, "input" or "output"."""
    for first, last in ((0, 31), (32, 63)):
        name = f"{side}_bit_registers{first}_to_{last}"
        yield Variable(name, "UINT32", "bits", "general purpose bits of a fieldbus", _REGISTERS)
    for i in range(64, 128):
        yield Variable(f"{side}_bit_register_{i}", "BOOL", "", "general purpose bit", _UPPER)
    for kind, type_ in (("int", "INT32"), ("double", "DOUBLE")):
        for i in range(REGISTERS):
            since = _REGISTERS if i < UPPER_RANGE else _UPPER
            name = f"{side}_{kind}_register_{i}"
            yield Variable(name, type_, "", "general purpose register", since)


def _table(*variables: Variable) -> Mapping[str, Variable]:
    return {variable.name: variable for variable in variables}


INPUTS = _table(
    Variable("speed_slider_mask", "UINT32", "", "1: take speed_slider_fraction"),
    Variable("speed_slider_fraction", "DOUBLE", "1", "speed slider of the pendant"),
    Variable("standard_digital_output_mask", "UINT8", "bits", "standard outputs to set"),
    Variable("configurable_digital_output_mask", "UINT8", "bits", "configurable outputs to set"),
    Variable("standard_digital_output", "UINT8", "bits", "their levels"),
    Variable("configurable_digital_output", "UINT8", "bits", "their levels"),
    Variable("standard_analog_output_mask", "UINT8", "bits", "analog outputs to set"),
    Variable("standard_analog_output_type", "UINT8", "bits", "0 current, 1 voltage"),
    Variable("standard_analog_output_0", "DOUBLE", "1", "part of its range"),
    Variable("standard_analog_output_1", "DOUBLE", "1", "part of its range"),
    Variable("external_force_torque", "VECTOR6D", "N, Nm", "wrench of a sensor outside", "3.3"),
    *_registers("input"),
)

OUTPUTS = _table(
    Variable("timestamp", "DOUBLE", "s", "time since the controller was started"),
    Variable("target_q", "VECTOR6D", "rad", "joint positions wanted"),
    Variable("target_qd", "VECTOR6D", "rad/s", "joint velocities wanted"),
    Variable("target_qdd", "VECTOR6D", "rad/s^2", "joint accelerations wanted"),
    Variable("target_current", "VECTOR6D", "A", "joint currents wanted"),
    Variable("target_moment", "VECTOR6D", "Nm", "joint torques wanted"),
    Variable("actual_q", "VECTOR6D", "rad", "joint positions"),
    Variable("actual_qd", "VECTOR6D", "rad/s", "joint velocities"),
    Variable("actual_current", "VECTOR6D", "A", "joint currents"),
    Variable("joint_control_output", "VECTOR6D", "A", "joint control currents"),
    Variable("actual_TCP_pose", "VECTOR6D", "m, rad", "tool: x y z, rotation vector"),
    Variable("actual_TCP_speed", "VECTOR6D", "m/s, rad/s", "speed of the tool"),
    Variable("actual_TCP_force", "VECTOR6D", "N, Nm", "wrench at the tool, without its payload"),
    Variable("target_TCP_pose", "VECTOR6D", "m, rad", "tool pose wanted"),
    Variable("target_TCP_speed", "VECTOR6D", "m/s, rad/s", "tool speed wanted"),
    Variable("actual_digital_input_bits", "UINT64", "bits", "0-7 standard, 8-15 conf., 16-17 tool"),
    Variable("joint_temperatures", "VECTOR6D", "degC", "temperature of each joint"),
    Variable("actual_execution_time", "DOUBLE", "s", "duration of the real-time cycle"),
    Variable("robot_mode", "INT32", "", "see modes.RobotMode"),
    Variable("joint_mode", "VECTOR6INT32", "", "control mode of each joint"),
    Variable("safety_mode", "INT32", "", "see modes.SafetyMode"),
    Variable(
        "safety_status", "INT32", "", "safety mode, with more kinds of stop", "3.10.0 / 5.4.0"
    ),
    Variable("actual_tool_accelerometer", "VECTOR3D", "m/s^2", "acceleration at the tool"),
    Variable("speed_scaling", "DOUBLE", "1", "what the trajectory limiter leaves of the speed"),
    Variable("target_speed_fraction", "DOUBLE", "1", "speed slider"),
    Variable("actual_momentum", "DOUBLE", "kg m/s", "norm of the linear momentum"),
    Variable("actual_main_voltage", "DOUBLE", "V", "safety board: mains"),
    Variable("actual_robot_voltage", "DOUBLE", "V", "safety board: arm (48 V)"),
    Variable("actual_robot_current", "DOUBLE", "A", "safety board: arm"),
    Variable("actual_joint_voltage", "VECTOR6D", "V", "voltage of each joint"),
    Variable("actual_digital_output_bits", "UINT64", "bits", "as actual_digital_input_bits"),
    Variable("runtime_state", "UINT32", "", "see modes.RuntimeState"),
    Variable("elbow_position", "VECTOR3D", "m", "position of the elbow", "3.5.0 / 5.0.0"),
    Variable("elbow_velocity", "VECTOR3D", "m/s", "velocity of the elbow", "3.5.0 / 5.0.0"),
    Variable("robot_status_bits", "UINT32", "bits", "power, program, teach button, power button"),
    Variable("safety_status_bits", "UINT32", "bits", "see modes.SAFETY_BITS"),
    Variable("analog_io_types", "UINT32", "bits", "inputs 0 1, outputs 0 1: 0 current, 1 voltage"),
    Variable("standard_analog_input0", "DOUBLE", "mA or V", "analog input 0"),
    Variable("standard_analog_input1", "DOUBLE", "mA or V", "analog input 1"),
    Variable("standard_analog_output0", "DOUBLE", "mA or V", "analog output 0"),
    Variable("standard_analog_output1", "DOUBLE", "mA or V", "analog output 1"),
    Variable("io_current", "DOUBLE", "mA", "current of the I/O"),
    Variable("euromap67_input_bits", "UINT32", "bits", "Euromap67 inputs"),
    Variable("euromap67_output_bits", "UINT32", "bits", "Euromap67 outputs"),
    Variable("euromap67_24V_voltage", "DOUBLE", "V", "Euromap67 supply"),
    Variable("euromap67_24V_current", "DOUBLE", "mA", "Euromap67 supply"),
    Variable("tool_mode", "UINT32", "", "mode of the tool"),
    Variable("tool_analog_input_types", "UINT32", "bits", "inputs 0 1: 0 current, 1 voltage"),
    Variable("tool_analog_input0", "DOUBLE", "mA or V", "tool's analog input 0"),
    Variable("tool_analog_input1", "DOUBLE", "mA or V", "tool's analog input 1"),
    Variable("tool_output_voltage", "INT32", "V", "supply of the tool"),
    Variable("tool_output_current", "DOUBLE", "mA", "current of the tool"),
    Variable("tool_temperature", "DOUBLE", "degC", "temperature of the tool"),
    Variable("tcp_force_scalar", "DOUBLE", "N", "force at the tool"),
    Variable("tool_output_mode", "UINT8", "", "mode of the tool's outputs"),
    Variable("tool_digital_output0_mode", "UINT8", "", "mode of the tool's output 0"),
    Variable("tool_digital_output1_mode", "UINT8", "", "mode of the tool's output 1"),
    Variable("payload", "DOUBLE", "kg", "mass of the payload", "3.11.0 / 5.5.1"),
    Variable("payload_cog", "VECTOR3D", "m", "its centre of gravity", "3.11.0 / 5.5.1"),
    Variable("payload_inertia", "VECTOR6D", "kg m^2", "Ixx Iyy Izz Ixy Ixz Iyz", "3.15 / 5.11"),
    Variable("script_control_line", "UINT32", "", "script line in control, or 0", "3.14.0 / 5.9.0"),
    Variable("ft_raw_wrench", "VECTOR6D", "N, Nm", "wrench as the sensor feels it", "5.9.0"),
    *_registers("output"),
    *_registers("input"),
)
