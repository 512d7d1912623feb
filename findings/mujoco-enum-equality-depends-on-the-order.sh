#!/usr/bin/env bash
# mujoco 4.0.0 (Python bindings): whether a model's numpy integers equal mujoco's enums depends on the order of the two.
# model.jnt_type[0] == mjtJoint.mjJNT_HINGE is True, mjtJoint.mjJNT_HINGE == model.jnt_type[0] is False, and so is
# model.jnt_type[0] in (mjtJoint.mjJNT_HINGE, mjtJoint.mjJNT_SLIDE), without an error. In 3.11.0 all three are True.
# What asks by `in` takes another branch in silence: gymnasium-robotics 1.4.2 asserts it in
# utils/mujoco_utils.py (set_joint_qpos), so that its Fetch and HandReach tasks end in an AssertionError without words.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/ask.py" <<'PYTHON'
import mujoco

model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><body><joint type="hinge"/><geom size="0.1"/></body></worldbody></mujoco>'
)
kind, hinge, slide = model.jnt_type[0], mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE
print(type(kind).__name__, kind == hinge, hinge == kind, kind in (hinge, slide), int(kind) in (hinge, slide))
PYTHON

ask() { # VERSION: installs it into an environment of its own, prints its answers
    python3 -m venv "$work/$1"
    "$work/$1/bin/pip" install --quiet "mujoco==$1" "numpy==2.4.6" >&2
    "$work/$1/bin/python" "$work/ask.py"
}

before=$(ask 3.11.0)
now=$(ask 4.0.0)
echo "numpy int, kind == hinge, hinge == kind, kind in (hinge, slide), int(kind) in (hinge, slide)"
echo "mujoco 3.11.0: $before"
echo "mujoco 4.0.0:  $now"
[ "$before" = "int32 True True True True" ]
[ "$now" = "int32 True False False True" ]
