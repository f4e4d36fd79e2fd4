"""The measured programs. Each is a module that runs in a new process: `python -m benchmarks.peers.course in out`.

A module imports only what it needs, because imports count as its memory.
"""
