"""What a Python program or a notebook calls: ``titanflow.plan``, ``run``, ``results`` and ``load`` (docs/python.md).

``titanflow`` itself hands these out, each as soon as it is asked for. Import them from there.
"""
