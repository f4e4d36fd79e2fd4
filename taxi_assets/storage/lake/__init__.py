"""The lake: files of each layer, stored as objects in a local folder or a Cloud Storage bucket.

Belongs here: how objects are stored and replaced (`base_lake.py` and its implementations), and which objects make up a
month (`objects.py`).
Does not belong here: what is in a file (`tlc/`), and Dagster assets and IO managers.
"""
