"""Looks for what a user cannot see before minutes are lost on it. Nothing is changed, and no device is opened."""

from demo_api.cli.doctor.examination import SUBJECTS, examine, load
from demo_api.cli.doctor.finding import Finding
from demo_api.cli.doctor.setup import Setup

__all__ = ["SUBJECTS", "Finding", "Setup", "examine", "load"]
