"""How often recognition errs, how well words find faces, and how sure that is.

    pairs.py           similarities of all pairs of faces, counted
    resampling.py      the person bootstrap: what another draw of persons might have given
    curves.py          FMR and FNMR by threshold, and the figures read off them
    verification.py    all pairs of a collection
    listed.py          the pairs of a list, in folds (LFW)
    identification.py  open set: mated probes and strangers against a gallery
    groups.py          differential error rates between groups of people
    discard.py         errors as the worst pictures are left out
    captions.py        how well sentences find faces, and how evenly groups of them
    clustering.py      how well a grouping of faces agrees with who they are
    report.py          tables, curves and one HTML page

A genuine pair shows one person twice, an impostor pair two persons. FMR: share of impostor pairs at
or above a threshold. FNMR: share of genuine pairs below it. TAR = 1 - FNMR. (ISO/IEC 19795-1.)
"""
