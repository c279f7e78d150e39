"""Thin on purpose: the metadata stand in setup.cfg."""

from setuptools import setup

setup()
