"""Modelling files for transformers, which go on the Hub as they are here, in one folder with the weights.

Hence they import torch, transformers and each other alone, each other by ``from .name import``.
"""
