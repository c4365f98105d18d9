"""Looks for what a user cannot see before minutes are lost on it. Nothing is changed, and no device is opened."""

from demo_api.doctor.examination import SUBJECTS, examine, load
from demo_api.doctor.finding import Finding
from demo_api.doctor.setup import Setup

__all__ = ["SUBJECTS", "Finding", "Setup", "examine", "load"]
