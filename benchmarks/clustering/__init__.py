"""How well, how fast and in how much memory faces are grouped, beside other ways of grouping.

sets.py        made-up faces that are hard to group, and fresh ones to calibrate with
graphs.py      the nearest faces of every face, as all ways of grouping but one take them
rivals.py      components, DBSCAN, HDBSCAN, Chinese whispers, Infomap, Leiden, and our default
lfw.py         LFW: each rival tuned on one half of the people, judged on the other
__main__.py    the commands
"""
