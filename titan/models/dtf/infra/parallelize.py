"""Parallelism for DTF: that of every family with routed layers."""

from titan.models.dynamic.parallelize import parallelize_routed as parallelize_dtf

__all__ = ["parallelize_dtf"]
