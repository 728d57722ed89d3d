"""Detection: train a YOLO detector on a snapshot and deploy it as ONNX + JSON. The one place that imports Ultralytics.

    train       the recipe; start reading here
    network     YOLO11 before training: random, with a taught backbone, or from a local file
    trainer     Ultralytics' training loop, made offline, silent and exactly resumable; a Course is what trainings differ in
    turns       how often each image is shown, where the number shown in a pass was set
    warp        features follow the augmentation
    teach       the recipe that teaches a backbone the diffusion model's features, without labels
    features    what the repository answers for a batch, each picture once
    fuse        the recipe of the fused detector, the teacher that reads features beside the image
    losses      PKD, CWD, MGD, logits, and their balance with the box loss
    distill     the recipe of the student
    guided      the recipe that runs all of these stages as one
    fidelity    how much of the features a student holds, by level and class
    export      the deployed artifact, checked against the network it came from
    demo_model  the recipe of the committed demo model
"""

import os

from backend.config import data_root
from backend.device import cores

# Ultralytics reads these once, while it is imported, so they stand before any import of it.
# Offline: no version check, no fonts, no weights, no pip, no telemetry. Safe load: a .pt builds known classes only.
os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false", ULTRALYTICS_SAFE_LOAD="true",
                  YOLO_CONFIG_DIR=str(data_root() / "cache"))
os.environ.setdefault("OMP_NUM_THREADS", str(cores()))       # else Ultralytics sets 1, also for what we start later
