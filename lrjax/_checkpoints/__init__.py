"""Checkpoints of a long computation: they survive a kill, damage, and a change of devices.

A folder holds the last two checkpoints, each a folder that Orbax writes and a list of its files:

    identity.json       says which run the checkpoints are of
    300/    300.json    step 300, and the checksums of its files
    400/    400.json

The list is written last: a checkpoint without one was never finished, and one whose files are
not those of its list is damaged. So process 0 alone can tell which checkpoint to use, before
any process reads it.

`store` writes and reads checkpoints, `folders` has the files around them, `identities` what tells
runs apart, `contents` what goes in.
"""

from lrjax._checkpoints.folders import subfolder as subfolder
from lrjax._checkpoints.identities import check_processes as check_processes
from lrjax._checkpoints.identities import recorded as recorded
from lrjax._checkpoints.store import Checkpoints as Checkpoints
from lrjax._checkpoints.store import open_checkpoints as open_checkpoints
