"""The fork server of all tests: a child process starts with everything imported.

A process has one fork server, which keeps what it has imported when it starts its first child.
"""

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["taxi_assets_tests.forkserver_preload"])
