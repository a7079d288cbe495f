"""Parallelism for Mixture-of-Depths: that of every family with routed layers."""

from titan.models.dynamic.parallelize import parallelize_routed as parallelize_mod

__all__ = ["parallelize_mod"]
