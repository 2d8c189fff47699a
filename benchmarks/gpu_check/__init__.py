"""``make gpu-check``: what the generator costs on this machine, through every engine and through its rivals.

Stages (``stages.py``) run one by one, each in a process of its own with a limit, and leave one JSON file each; what is
finished is not measured again. ``report.py`` gathers the files into one table. ``docs/performance.md`` explains it.
"""
