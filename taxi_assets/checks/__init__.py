"""Asset checks: compare stored data with its source after a run has written it."""
