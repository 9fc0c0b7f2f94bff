# Generated from _async/__init__.py by build_hooks/generate_sync.py. Do not edit.
"""Connections, pool and stream: the order of I/O, and nothing else."""
