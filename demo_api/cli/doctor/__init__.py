"""Finds hidden problems before they cost minutes. Changes nothing, and opens no device unless asked to."""
