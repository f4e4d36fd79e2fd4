"""Nothing of its own: all metadata lives in pyproject.toml. The project's owner wants the file here, so it stays."""

from setuptools import setup

setup()
