"""Pictures of attributions: figures of matplotlib, and text for notebooks and terminals."""

from attrib.plot import colors, labels, markup, terminal, words
from attrib.plot._compare import compare
from attrib.plot._curves import curve
from attrib.plot._features import bar, force, waterfall
from attrib.plot._image import image
from attrib.plot._images import images
from attrib.plot._mask import mask
from attrib.plot._matrices import confusion, tokens2d
from attrib.plot._modes import MODES
from attrib.plot._samples import beeswarm, heatmap, scatter
from attrib.plot._series import timeseries
from attrib.plot._text import TextRecord, TextView, text, texts

__all__ = [
    "MODES",
    "TextRecord",
    "TextView",
    "bar",
    "beeswarm",
    "colors",
    "compare",
    "confusion",
    "curve",
    "force",
    "heatmap",
    "image",
    "images",
    "labels",
    "markup",
    "mask",
    "scatter",
    "terminal",
    "text",
    "texts",
    "timeseries",
    "tokens2d",
    "waterfall",
    "words",
]
