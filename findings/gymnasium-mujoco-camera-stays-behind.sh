#!/usr/bin/env bash
# gymnasium 1.4.0: the default picture of its MuJoCo tasks does not follow the robot, which walks out of it.
#
# Walker2d-v5 and its like come with a model camera named "track", and a default_camera_config with trackbodyid. Where no camera is
# asked for, MujocoRenderer looks "track" up and then takes the free camera in its place, so that the configuration counts
# (distance, elevation). But MuJoCo reads trackbodyid for cameras of type mjCAMERA_TRACKING alone, and the type stays
# mjCAMERA_FREE: videos of a policy that walks show the floor. camera_name="track" follows.
# No picture is drawn here: MuJoCo computes where its cameras stand without a display.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "gymnasium[mujoco]==1.4.0" mujoco==4.0.0
"$folder/venv/bin/python" - <<'PYTHON'
import gymnasium
import mujoco

print("gymnasium", gymnasium.__version__, "mujoco", mujoco.__version__)


def travelled(**arguments):
    """How far robot and camera go along x when the robot is put 5 m ahead."""
    environment = gymnasium.make("Walker2d-v5", render_mode="rgb_array", **arguments)
    environment.reset(seed=0)
    task = environment.unwrapped
    renderer = task.mujoco_renderer
    camera = mujoco.MjvCamera()
    camera.fixedcamid = renderer.camera_id
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE if renderer.camera_id == -1 else mujoco.mjtCamera.mjCAMERA_FIXED
    for name, value in renderer.default_cam_config.items():
        try:
            setattr(camera, name, value)
        except TypeError:
            getattr(camera, name)[:] = value
    scene, option, perturbation = mujoco.MjvScene(task.model, 100), mujoco.MjvOption(), mujoco.MjvPerturb()
    found = []
    for x in (0.0, 5.0):
        task.data.qpos[0] = x
        mujoco.mj_forward(task.model, task.data)
        mujoco.mjv_updateScene(
            task.model, task.data, option, perturbation, camera, mujoco.mjtCatBit.mjCAT_ALL, scene
        )
        found.append((float(task.data.xpos[1][0]), float(scene.camera[0].pos[0])))
    environment.close()
    kind = "free" if camera.type == mujoco.mjtCamera.mjCAMERA_FREE else "of the model"
    print(f"{arguments or 'default'}: camera {kind}, robot {found[1][0] - found[0][0]:.2f} m, camera {found[1][1] - found[0][1]:.2f} m")
    return kind, found[1][0] - found[0][0], found[1][1] - found[0][1], renderer.default_cam_config


kind, robot, camera, config = travelled()
assert "trackbodyid" in config, "no body to track is configured any more"
assert kind == "free" and abs(robot - 5) < 1e-6 and abs(camera) < 1e-6, "the default camera follows now"
kind, robot, camera, _ = travelled(camera_name="track")
assert kind == "of the model" and abs(camera - 5) < 1e-3, "the camera named track does not follow"
print("as described")
PYTHON
