"""lrjax"""

from lrjax.schedules import *
