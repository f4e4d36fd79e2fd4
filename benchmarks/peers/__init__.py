"""Those who are measured, each a module that runs in a process of its own: `python -m benchmarks.peers.course in out`.

Each loads what it needs and nothing else, because that counts as its memory.
"""
