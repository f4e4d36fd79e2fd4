"""`make doctor`: show what the settings mean, check each part of the deployment, and name the fix.

`check_runner.py` runs the checks, `__main__.py` is the command, and the other modules hold one check per part. A check
leaves everything as it found it. Its errors are those of `errors.py` where one fits.
"""
