"""Reads what a child printed: answers, metrics, phases, error. Pure: no I/O, no clock."""

from demo_api.transcript.decoding import starts_with_stop_token
from demo_api.transcript.demo_log import Phase
from demo_api.transcript.reader import Reader, Reading, parse

__all__ = ["Phase", "Reader", "Reading", "parse", "starts_with_stop_token"]
