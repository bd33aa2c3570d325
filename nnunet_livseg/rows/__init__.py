"""The rows of the table, one file per paper. Data only.

A new system is ``rows/NAME.py`` (named in ``variants.py``), ``networks/NAME.py`` with what it adds to ``blocks`` and
``losses``, ``docs/papers/NAME.md`` and ``tests/NAME``. Trainers, plans, commands, README and the matrix follow from its
rows.
"""
