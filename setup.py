"""Nothing of its own: all metadata lives in pyproject.toml. The project's owner asks for this file here, so it stays."""

from setuptools import setup

setup()
