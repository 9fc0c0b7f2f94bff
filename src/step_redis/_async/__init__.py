# The source of both flavours: build_hooks/generate_sync.py makes _sync/ from it.
"""Connections, pool and stream: the order of I/O, and nothing else."""
