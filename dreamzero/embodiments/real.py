"""Cards of real robots: the released checkpoints' embodiments and the recordings used in tests."""

from __future__ import annotations

from .card import Embodiment, Field
from .tabletop import FRANKA

# Geometry of MODEL.md 1. The released prompt templates come with the checkpoint importer; the
# instruction alone is used until then.
DROID = Embodiment(
    name="droid",
    robot="franka",
    views=(
        "observation.images.exterior_1_left",
        "observation.images.exterior_2_left",
        "observation.images.wrist_left",
    ),
    layout="droid",
    canvas_px=(352, 640),
    state=(Field("joint_position", 0, 7), Field("gripper_position", 7, 8, unit="1")),
    action=(
        Field("joint_position", 0, 7, relative=True),
        Field("gripper_position", 7, 8, unit="1"),
    ),
    video_hz=5.0,
    action_hz=15.0,
    horizon=24,
    lower=FRANKA.lower,
    upper=FRANKA.upper,
    velocity=FRANKA.velocity,
)

# Franka with a USB stick, two cameras, recorded at 20 Hz; small canvas for the tiny model.
FRANKA_USB = Embodiment(
    name="franka_usb",
    robot="franka",
    views=("observation.images.right_cam", "observation.images.wrist_cam"),
    layout="column",
    canvas_px=(128, 64),
    state=(Field("joint_pos", 0, 7), Field("gripper_state", 7, 8, unit="1")),
    action=(
        Field("joint_pos", 0, 7, relative=True),
        Field("gripper_state", 7, 8, unit="1"),
    ),
    video_hz=5.0,
    action_hz=10.0,
    horizon=16,
    lower=FRANKA.lower,
    upper=FRANKA.upper,
    velocity=FRANKA.velocity,
)

# One I2RT YAM with its linear gripper, as its SDK counts (gripper 1 is open). Position limits: the narrower of
# the maker's URDF (i2rt-robotics/i2rt) and MuJoCo Menagerie's model. The maker names no joint speeds:
# 3 rad/s is half of what its slowest motors turn without load (DM-J4340P: 52 rpm).
YAM = Embodiment(
    name="yam_arm",
    robot="yam",
    views=("observation.images.top", "observation.images.wrist"),
    layout="column",
    canvas_px=(128, 64),
    state=(Field("joint_pos", 0, 6), Field("gripper_pos", 6, 7, unit="1")),
    action=(
        Field("joint_pos", 0, 6, relative=True),
        Field("gripper_pos", 6, 7, unit="1"),
    ),
    video_hz=5.0,
    action_hz=30.0,
    horizon=48,
    lower=(-2.61799, 0.0, 0.0, -1.5708, -1.5708, -2.0944, 0.0),
    upper=(3.05433, 3.66519, 3.14159, 1.5708, 1.5708, 2.0944, 1.0),
    velocity=(3.0,) * 6 + (4.0,),
)

CARDS = (DROID, FRANKA_USB, YAM)
