"""Noise and cells: what surfaces and defects are drawn from. All follow from the generator that is handed in."""

from typing import Any

import cv2
import numpy as np

Rng = np.random.Generator
Field = np.ndarray[Any, np.dtype[np.float32]]


def grain(rng: Rng, side: int, along: float, across: float, angle: float = 0.0) -> Field:
    """White noise blurred by so many pixels along an angle and across it, mean 0, deviation 1; without seams."""
    u, v = turned(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :], angle)
    return _shaped(rng, side, np.exp(-2 * np.pi**2 * ((u * along) ** 2 + (v * across) ** 2)))


def clouds(rng: Rng, side: int, fall: float) -> Field:
    """Noise whose amplitude falls with the frequency to this power, mean 0, deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    return _shaped(rng, side, np.maximum(frequency, 1 / side) ** -fall)


def _shaped(rng: Rng, side: int, amplitude: Any) -> Field:
    amplitude = np.asarray(amplitude, np.float32)
    amplitude[0, 0] = 0
    made = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side), np.float32)) * amplitude, (side, side))
    return np.asarray(made / max(float(made.std()), 1e-9), np.float32)


def turned(y: Any, x: Any, angle: float) -> tuple[Any, Any]:
    """Coordinates along and across an angle."""
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def cells(rng: Rng, side: int, n: int) -> "np.ndarray[Any, np.dtype[np.int32]]":
    """Which of n chance points is nearest, by number from 1: int32 (S, S)."""
    elsewhere = np.full((side, side), 255, np.uint8)
    elsewhere[rng.integers(side, size=n), rng.integers(side, size=n)] = 0
    labels = cv2.distanceTransformWithLabels(elsewhere, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    return np.asarray(labels, np.int32)


def borders(labels: "np.ndarray[Any, np.dtype[np.int32]]") -> Field:
    """1 where one cell meets another."""
    met = np.zeros(labels.shape, np.float32)
    met[:, 1:] += labels[:, 1:] != labels[:, :-1]
    met[1:] += labels[1:] != labels[:-1]
    return np.minimum(met, 1)
