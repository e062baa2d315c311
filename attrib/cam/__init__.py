"""Class activation maps: where in a layer the feature maps are that the score owes to."""

from attrib.cam.eigen import eigen_cam
from attrib.cam.evaluations import ablation_cam, score_cam
from attrib.cam.gradients import grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, xgrad_cam
from attrib.cam.guided import guided_grad_cam
from attrib.cam.sizes import upsample

__all__ = [
    "ablation_cam",
    "eigen_cam",
    "grad_cam",
    "grad_cam_plus_plus",
    "guided_grad_cam",
    "hires_cam",
    "layer_cam",
    "score_cam",
    "upsample",
    "xgrad_cam",
]
