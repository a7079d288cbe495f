"""Parallelism for TDTF: that of every family with routed layers."""

from titan.models.dynamic.parallelize import parallelize_routed as parallelize_tdtf

__all__ = ["parallelize_tdtf"]
