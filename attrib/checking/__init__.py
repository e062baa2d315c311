"""Which laws does a method keep on a model? A check for users' own methods and models."""

from attrib.checking._check import LAWS, check
from attrib.checking._report import Counterexample, Finding, Report

__all__ = ["LAWS", "Counterexample", "Finding", "Report", "check"]
