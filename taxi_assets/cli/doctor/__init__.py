"""`make doctor`: what the present settings mean, whether each part can be reached, and what to do where it cannot.

`check_runner.py` is how parts are looked at, `__main__.py` the command, the other modules are the parts. Belongs here:
looking. What is looked at is left as it was, and what is wrong is said in the words of `errors.py` where they fit.
"""
